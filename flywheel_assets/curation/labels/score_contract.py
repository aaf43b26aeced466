"""Declares a classification application's events: features with their types, labels, and field names.

The same declaration is used twice: by capture, so that a wrong event is refused while its sender can still correct
it, and when examples are made, because events may have been captured before the declaration changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.ranges import Checked, Name


class FeatureType(StrEnum):
    """The type of a feature's values. Null is a missing value and always allowed; leaving the feature out is not."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"


_JSON_TYPES = {
    FeatureType.NUMBER: ("DOUBLE", "BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "INTEGER"),
    FeatureType.TEXT: ("VARCHAR",),
    FeatureType.BOOLEAN: ("BOOLEAN",),
}
_SQL_TYPE = {FeatureType.NUMBER: "DOUBLE", FeatureType.TEXT: "VARCHAR", FeatureType.BOOLEAN: "BOOLEAN"}


@dataclass(frozen=True, kw_only=True)
class FieldMapping:
    """Maps our fields to dotted paths in the application's own JSON; see the README for an example.

    Of a prediction only `key`, `score` and `features` must be there, of a label `key` and `label`.
    """

    key: str = "prediction_id"
    """In predictions and labels: the id of the decision, for instance of the transaction."""
    score: str = "score"
    features: str = "features"
    label: str = "label"
    """A JSON boolean, or one of the contract's two label words."""
    labeling_source: str = "labeling_source"
    label_time: str = "occurred_at"
    known_at: str = "known_at"
    prediction_time: str = "occurred_at"
    entity: str = "user_id"
    """The subject of the decision: the card or customer that rows are grouped by in evaluation."""
    amount: str = "amount"
    segment: str = "segment"
    action: str = "action"
    allow_propensity: str = "allow_propensity"
    model_version: str = "model_version"
    do_not_train: str = "do_not_train"


@dataclass(frozen=True, kw_only=True)
class ScoreContract(Checked):
    """Features, label words and field names of one classification application."""

    features: Mapping[str, FeatureType]
    """Every feature the model reads, as logged at the decision. Events may carry more; those are stored, not used."""
    positive_label: Name = "true"
    """The label word of the class whose probability the score is; a JSON `true` means it, too, where it is "true"."""
    negative_label: Name = "false"
    mapping: FieldMapping = field(default_factory=FieldMapping)
    blocking_actions: frozenset[str] = frozenset({"block"})
    """Actions after which the outcome cannot be seen: silence about such a prediction says nothing."""

    def _check_together(self) -> None:
        if not self.features:
            raise self.build_range_error(
                "features", self.features, "at least one feature: declare what the model reads"
            )
        if self.positive_label == self.negative_label:
            raise self.build_range_error("negative_label", self.negative_label, "another word than positive_label")

    def write_blocked_sql(self, action: str = "action") -> str:
        """Write, as a DuckDB BOOLEAN that is never null, whether an action keeps the outcome from being seen."""
        blocking = ", ".join(quote(each) for each in sorted(self.blocking_actions)) or "NULL"
        return f"coalesce(({action}) IN ({blocking}), false)"

    def find_problem(self, features: Mapping[str, object]) -> str | None:
        """Return a sentence about the first wrong feature of one event; None where all are right."""
        for name, kind in self.features.items():
            if name not in features:
                return f"feature `{name}` is missing; valid: a {kind.value}, or null for an unknown value"
            value = features[name]
            if value is not None and not _is_value_of(value, kind):
                return f"feature `{name}` is a {_name_json_type(value)}; valid: a {kind.value} or null"
        return None

    def write_problem_sql(self, features: str = "features") -> str:
        """Write the same check for stored events, as a DuckDB VARCHAR over a JSON text; NULL where all are right."""
        cases = []
        for name, kind in self.features.items():
            found = f"json_type({features}, {quote(_write_json_path(name))})"
            valid = ", ".join(quote(each) for each in (*_JSON_TYPES[kind], "NULL"))
            missing = quote(f"feature `{name}` is missing; valid: a {kind.value}, or null for an unknown value")
            wrong = quote(f"feature `{name}` is no {kind.value}; valid: a {kind.value} or null")
            cases.append(f"WHEN {found} IS NULL THEN {missing} WHEN {found} NOT IN ({valid}) THEN {wrong}")
        return f"CASE {' '.join(cases)} END"

    def write_struct_sql(self, features: str = "features") -> str:
        """Write the declared features as a DuckDB STRUCT with their types, over a JSON text."""
        typed = {name: _SQL_TYPE[kind] for name, kind in self.features.items()}
        fields = ", ".join(f"{_write_json_text(name)}: {_write_json_text(kind)}" for name, kind in typed.items())
        return f"from_json({features}, {quote('{' + fields + '}')})"


def unpack_features(rows: pa.Table) -> pa.Table:
    """Return the features of exported rows, whose column `features` is a STRUCT, as one column each."""
    structs = rows["features"].combine_chunks()
    return pa.table(
        [pc.struct_field(structs, index) for index in range(structs.type.num_fields)],
        names=[field.name for field in structs.type],
    )


def _is_value_of(value: object, kind: FeatureType) -> bool:
    match kind:
        case FeatureType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case FeatureType.TEXT:
            return isinstance(value, str)
        case FeatureType.BOOLEAN:
            return isinstance(value, bool)


def _name_json_type(value: object) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _write_json_path(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'


def _write_json_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
