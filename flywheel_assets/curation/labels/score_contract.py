"""Declares a classification application's events: features with their types, labels, and field names.

The same declaration is used twice: by capture, so that a wrong event is refused while its sender can still correct
it, and when examples are made, because events may have been captured before the declaration changed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.sql_literals import quote
from flywheel_assets.ranges import Checked, Name, Positive


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
_USUAL_TYPES: dict[FeatureType, type] = {
    FeatureType.NUMBER: float,
    FeatureType.TEXT: str,
    FeatureType.BOOLEAN: bool,
}
_ABSENT = object()
_SQL_TYPE = {FeatureType.NUMBER: "DOUBLE", FeatureType.TEXT: "VARCHAR", FeatureType.BOOLEAN: "BOOLEAN"}


_CLASS_NAME = re.compile(r"[\w.-][\w. -]{0,59}")
"""It names metrics, for which MLflow takes no other characters."""
MOST_CLASSES = 100
SUM_TOLERANCE = 0.01
"""Of the probabilities of all classes around 1: senders round them."""

_PATHS = (
    "key",
    "score",
    "scores",
    "features",
    "label",
    "labeling_source",
    "label_time",
    "known_at",
    "prediction_time",
    "entity",
    "amount",
    "segment",
    "action",
    "allow_propensity",
    "label_propensity",
    "model_version",
    "do_not_train",
)


@dataclass(frozen=True, kw_only=True)
class FieldMapping(Checked):
    """Maps our fields to dotted paths in the application's own JSON, and declares how its values are written.

    Of a prediction only `key`, `score` and `features` must be there, of a label `key` and `label`. An id may be a text
    or a whole number. A number as a time counts seconds, or milliseconds from 1e11 on.
    """

    key: Name = "prediction_id"
    """In predictions and labels: the id of the decision, for instance of the transaction."""
    score: Name = "score"
    scores: Name = "scores"
    """Of several classes, in place of `score`: the object with each class's probability."""
    features: str | None = "features"
    """The object of the features. None or "": each declared feature is a field or a dotted path of its own."""
    label: Name = "label"
    """A JSON boolean, one of the contract's two label words, or one of the words below. Null: not labelled yet."""
    labeling_source: Name = "labeling_source"
    """Of a label: who said so, for instance "chargeback". Without it a file is one source, whose newer label replaces
    its older one: a contradiction needs two sources."""
    label_time: Name = "occurred_at"
    """Of a label: when it was given. Enough where your records have one time; without any it counts from its receipt.
    """
    known_at: Name = "known_at"
    """Of a label: when its source knew it, where that is another field than `label_time`; it goes first."""
    prediction_time: Name = "occurred_at"
    """Of a prediction: when it was made; without it, the time of its receipt."""
    entity: Name = "user_id"
    """The subject of the decision: the card or customer that rows are grouped by in evaluation."""
    amount: Name = "amount"
    segment: Name = "segment"
    action: Name = "action"
    allow_propensity: Name = "allow_propensity"
    label_propensity: Name = "label_propensity"
    """Of a prediction: with which probability a case like it is labelled, more than 0 to 1; see `MiningRules.silence`.
    """
    model_version: Name = "model_version"
    do_not_train: Name = "do_not_train"
    positive_words: tuple[Name, ...] = ()
    """Words that mean the positive label, upper or lower case; a number counts as its digits: 1 is the word "1"."""
    negative_words: tuple[Name, ...] = ()
    time_zone: Name | None = None
    """The zone of times that name none, for instance "Europe/Berlin". None: such a time is refused."""
    time_format: Name | None = None
    """The `strptime` pattern of times as text, for instance "%d.%m.%Y %H:%M". None: ISO 8601."""
    numbers_as_text: bool = False
    """Whether numbers and booleans may be texts, as in tables; an empty text is then a missing value."""
    decimal_comma: bool = False
    """Whether such a text writes 1.234,5 for 1234.5."""
    booleans_as_numbers: bool = False
    """Whether 0 and 1 are values of boolean features."""
    score_scale: Positive = 1.0
    """What a score of certainty is: 100 where scores are percentages."""

    @property
    def is_wide(self) -> bool:
        """Return whether features are fields of their own, without an object around them."""
        return not self.features

    def _check_together(self) -> None:
        for name in _PATHS:
            path = getattr(self, name)
            if path and "" in path.split("."):
                raise self.build_range_error(name, path, "a dotted path without an empty part")
        for name in ("score", "label"):
            for other in _PATHS:
                if (
                    other != name
                    and (other, self.scores) != ("scores", "scores")
                    and getattr(self, other) == getattr(self, name)
                ):
                    raise self.build_range_error(name, getattr(self, name), f"another path than {other}'s")
        if self.features == self.key:
            raise self.build_range_error("features", self.features, "another path than key's")
        both = {each.casefold() for each in self.positive_words} & {each.casefold() for each in self.negative_words}
        if both:
            valid = f"words that are not in positive_words, too ({', '.join(sorted(both))})"
            raise self.build_range_error("negative_words", self.negative_words, valid)
        if self.decimal_comma and not self.numbers_as_text:
            raise self.build_range_error("decimal_comma", True, "numbers_as_text=True with it")
        if self.time_zone is not None:
            try:
                ZoneInfo(self.time_zone)
            except (ValueError, OSError, KeyError):
                valid = 'a zone of the IANA list, such as "Europe/Berlin"'
                raise self.build_range_error("time_zone", self.time_zone, valid) from None


@dataclass(frozen=True, kw_only=True)
class ScoreContract(Checked):
    """Features, label words and field names of one classification application."""

    features: Mapping[str, FeatureType]
    """Every feature the model reads, as logged at the decision. Events may carry more; those are stored, not used."""
    features_since: Mapping[str, date] = field(default_factory=dict)
    """For a feature that came later: its first UTC day of receipt. Events received before may lack it, and a value of
    another type in them is no error: both are missing values, in training and evaluation rows. From that day on the
    feature is required. An application's first features need no day."""
    retired_features: Mapping[str, FeatureType] = field(default_factory=dict)
    """Features that new models no longer read. Events may carry them or not; evaluation rows keep what was logged, for
    a champion that was trained with them. Remove one once no model that may serve needs it."""
    positive_label: Name = "true"
    """The label word of the class whose probability the score is; a JSON `true` means it, too, where it is "true"."""
    negative_label: Name = "false"
    classes: tuple[Name, ...] = ()
    """The label words of three or more classes, of which a row has one; predictions then carry `scores`, the
    probability of each, in place of `score`. `negative_label` is one of them, and everything that asks whether a row is
    positive asks whether its class is another one: the score is 1 − its probability. Empty: two classes."""
    mapping: FieldMapping = field(default_factory=FieldMapping)
    blocking_actions: frozenset[str] = frozenset({"block"})
    """Actions after which the outcome cannot be seen: silence about such a prediction says nothing."""
    trusted_sources: frozenset[str] = frozenset()
    """Labeling sources that a sender with a key may claim only by that key's right; an application fills in those of
    its trusted tiers."""

    def _check_together(self) -> None:
        if not self.features:
            raise self.build_range_error(
                "features", self.features, "at least one feature: declare what the model reads"
            )
        for name in self.features:
            if not isinstance(name, str) or not name.strip():
                raise self.build_range_error("features", name, "a name that is not empty for every feature")
        for name, first in self.features_since.items():
            if name not in self.features:
                raise self.build_range_error("features_since", name, f"one of features: {', '.join(self.features)}")
            # A datetime is a date for Python, and comparing the two fails with the first event.
            if not isinstance(first, date) or isinstance(first, datetime):
                raise self.build_range_error(f"features_since[{name!r}]", first, "a day, such as date(2026, 10, 1)")
        if both := self.features.keys() & self.retired_features:
            valid = f"none of features: {', '.join(sorted(both))} cannot be both"
            raise self.build_range_error("retired_features", sorted(self.retired_features), valid)
        if self.classes:
            self._check_classes()
            return
        if self.positive_label == self.negative_label:
            raise self.build_range_error("negative_label", self.negative_label, "another word than positive_label")
        if self.negative_label.casefold() in _fold(self.mapping.positive_words):
            raise self.build_range_error("negative_label", self.negative_label, "none of mapping.positive_words")
        if self.positive_label.casefold() in _fold(self.mapping.negative_words):
            raise self.build_range_error("positive_label", self.positive_label, "none of mapping.negative_words")

    def _check_classes(self) -> None:
        if not 3 <= len(self.classes) <= MOST_CLASSES or len(set(self.classes)) < len(self.classes):
            valid = f"3 to {MOST_CLASSES} different words, or none for two classes"
            raise self.build_range_error("classes", self.classes, valid)
        for name in self.classes:
            if not _CLASS_NAME.fullmatch(name):
                valid = "words of at most 60 letters, digits, spaces, '_', '-' and '.': they name metrics"
                raise self.build_range_error("classes", name, valid)
        if self.positive_label != "true":
            valid = "left out where classes are declared: every class but negative_label is positive"
            raise self.build_range_error("positive_label", self.positive_label, valid)
        if self.negative_label not in self.classes:
            raise self.build_range_error("negative_label", self.negative_label, f"one of {', '.join(self.classes)}")
        if self.mapping.positive_words:
            valid = "none where classes are declared: a label is sent as the word of its class"
            raise self.build_range_error("mapping.positive_words", self.mapping.positive_words, valid)

    @property
    def label_words(self) -> tuple[str, ...]:
        """Return the words that a label may be."""
        return self.classes or (self.positive_label, self.negative_label)

    @property
    def said_column(self) -> str:
        """Return the column that says what a label says: two that differ in it contradict each other."""
        return "label_class" if self.classes else "is_positive"

    def write_is_positive_sql(self, label: str = "label") -> str:
        """Write whether a label word is positive, as a DuckDB BOOLEAN; NULL where it is no word of the contract."""
        positive = ", ".join(quote(word) for word in self.label_words if word != self.negative_label)
        return f"CASE WHEN {label} IN ({positive}) THEN true WHEN {label} = {quote(self.negative_label)} THEN false END"

    def write_class_sql(self, label: str = "label") -> str:
        """Write the class of a label word, as a DuckDB VARCHAR.

        NULL where the contract has two classes, and where the word is none of several.
        """
        if not self.classes:
            return "NULL::VARCHAR"
        return f"CASE WHEN {label} IN ({', '.join(map(quote, self.classes))}) THEN {label} END"

    def write_probabilities_sql(self, scores: str = "scores") -> str:
        """Write the probabilities of all classes, in their order, as a DuckDB LIST of DOUBLE over a JSON text."""
        paths = ", ".join(quote(_write_json_path(name)) for name in self.classes)
        return f"CAST(json_extract({scores}, [{paths}]) AS DOUBLE[])"

    def check_scores(self, scores: Mapping[str, float], field: str = "scores") -> float:
        """Return the score of the probabilities of all classes: 1 − that of the negative label.

        Args:
            scores: by class.
            field: its name, for the message.

        Raises:
            ValueError: a class is missing or unknown, a probability is none, or they do not sum to 1.
        """
        if missing := [name for name in self.classes if name not in scores]:
            raise ValueError(f"`{field}` lacks {', '.join(missing[:5])}; valid: a probability of every class")
        if unknown := [name for name in scores if name not in self.classes]:
            raise ValueError(f"`{field}` names {unknown[0][:80]!r}; valid: {', '.join(self.classes)}")
        for name, value in scores.items():
            # Not "outside 0 to 1": a number that is none is refused, too.
            if not 0 <= value <= 1:
                raise ValueError(f"`{field}` of {name!r} is {value:g}; valid: 0 to 1")
        total = sum(scores.values())
        if abs(total - 1) > SUM_TOLERANCE + 1e-9:  # .33 three times is within it, but for the last digit
            raise ValueError(f"`{field}` sum to {total:.3f}; valid: 1, within {SUM_TOLERANCE}")
        return 1 - scores[self.negative_label]

    def read_label(self, label: str) -> str | None:
        """Return the contract's word for a label as it was sent; None where it is none."""
        if label in self.label_words:
            return label
        word = label.casefold()
        if word in _fold(self.mapping.positive_words):
            return self.positive_label
        return self.negative_label if word in _fold(self.mapping.negative_words) else None

    def list_unmapped(self, values: Mapping[str, Any]) -> list[str]:
        """List the fields of a team's own JSON, by dotted names, that are not read and not stored."""
        return list(_find_unmapped(values, "", self._read_paths, self._parents))

    @cached_property
    def _read_paths(self) -> frozenset[str]:
        unread = "score" if self.classes else "scores"
        paths = {getattr(self.mapping, name) for name in _PATHS if name != unread} - {None, ""}
        return frozenset(paths | set(self.logged_features) if self.mapping.is_wide else paths)

    @cached_property
    def _parents(self) -> frozenset[str]:
        """Return the objects within which a path goes on."""
        cut = (path.split(".") for path in self._read_paths)
        return frozenset(".".join(names[:end]) for names in cut for end in range(1, len(names)))

    def write_blocked_sql(self, action: str = "action") -> str:
        """Write, as a DuckDB BOOLEAN that is never null, whether an action keeps the outcome from being seen."""
        blocking = ", ".join(quote(each) for each in sorted(self.blocking_actions)) or "NULL"
        return f"coalesce(({action}) IN ({blocking}), false)"

    @cached_property
    def usual_types(self) -> Mapping[str, type]:
        """Return, for each feature, the Python type that most of its values have."""
        return {name: _USUAL_TYPES[kind] for name, kind in self.features.items()}

    @cached_property
    def logged_features(self) -> Mapping[str, FeatureType]:
        """Return the features of today's models, and the retired ones that an older champion may read."""
        return {**self.features, **self.retired_features}

    def find_problem(self, features: Mapping[str, object], received: date | None = None) -> str | None:
        """Return a sentence about the first wrong feature of one event; None where all are right.

        Args:
            features: by name.
            received: the UTC day of the event's receipt, before which a later feature is not required. None: all are.
        """
        for name, usual in self.usual_types.items():
            value = features.get(name, _ABSENT)
            if type(value) is usual or value is None:
                continue
            if received and name in self.features_since and received < self.features_since[name]:
                continue
            kind = self.features[name]
            if value is _ABSENT:
                return f"feature `{name}` is missing; valid: a {kind.value}, or null for an unknown value"
            if not _is_value_of(value, kind):
                return f"feature `{name}` is a {name_json_type(value)}; valid: a {kind.value} or null"
        return None

    def write_problem_sql(self, features: str = "features", received_date: str = "received_date") -> str:
        """Write the same check for stored events, as a DuckDB VARCHAR over a JSON text; NULL where all are right.

        Args:
            features: expression of the JSON text.
            received_date: expression of the prediction's day of receipt.
        """
        cases = []
        for name, kind in self.features.items():
            found = f"json_type({features}, {quote(_write_json_path(name))})"
            valid = ", ".join(quote(each) for each in (*_JSON_TYPES[kind], "NULL"))
            missing = quote(f"feature `{name}` is missing; valid: a {kind.value}, or null for an unknown value")
            wrong = quote(f"feature `{name}` is no {kind.value}; valid: a {kind.value} or null")
            first = self.features_since.get(name)
            since = f"{received_date} >= DATE {quote(first.isoformat())} AND " if first else ""
            cases.append(
                f"WHEN {since}{found} IS NULL THEN {missing} WHEN {since}{found} NOT IN ({valid}) THEN {wrong}"
            )
        return f"CASE {' '.join(cases)} END"

    def write_struct_sql(self, features: str = "features", *, with_retired: bool = False) -> str:
        """Write the declared features as a DuckDB STRUCT with their types, over a JSON text; absent ones are NULL."""
        declared = self.logged_features if with_retired else self.features
        typed = {name: _SQL_TYPE[kind] for name, kind in declared.items()}
        fields = ", ".join(f"{_write_json_text(name)}: {_write_json_text(kind)}" for name, kind in typed.items())
        return f"from_json({features}, {quote('{' + fields + '}')})"


def _fold(words: tuple[str, ...]) -> set[str]:
    return {each.casefold() for each in words}


def _find_unmapped(
    values: Mapping[str, Any], prefix: str, paths: frozenset[str], parents: frozenset[str]
) -> Iterator[str]:
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in paths:
            continue
        if path in parents and isinstance(value, Mapping):
            yield from _find_unmapped(value, f"{path}.", paths, parents)
        else:
            yield path


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


def name_json_type(value: object) -> str:
    """Return what JSON calls a value's type."""
    names = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _write_json_path(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'$."{escaped}"'


def _write_json_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def write_score_content_sql() -> str:
    """Write what a raw score says, as JSON text: two receipts of one prediction with equal texts are a retry."""
    said = ", ".join(f"{name}: {name}" for name in ("model_version", "features", "score", "amount", "segment"))
    return f"CAST(to_json({{{said}}}) AS VARCHAR)"
