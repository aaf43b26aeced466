"""Three classes: what the contract refuses, which labels contradict each other, and what counts as wrong."""

from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from flywheel_assets import records
from flywheel_assets.curation.labels.discrepancies import write_class_discrepancy_sql, write_class_severity_sql
from flywheel_assets.curation.labels.label_resolution import LabelRules, write_resolved_labels_sql
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.errors import SettingsError
from flywheel_assets_tests.builders import NOON

CLASSES = ("legit", "stolen", "friendly")
CROWD = (("ann", "bob", "cy"),)


def contract(**changes: Any) -> ScoreContract:
    declared = {"features": {"amount": FeatureType.NUMBER}, "classes": CLASSES, "negative_label": "legit"}
    return ScoreContract(**{**declared, **changes})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classes": ("legit", "stolen")}, "3 to 100 different words, or none for two classes"),
        ({"classes": ("legit", "stolen", "stolen")}, "3 to 100 different words"),
        ({"classes": (*CLASSES, "a/b")}, "they name metrics"),
        ({"negative_label": "fine"}, "one of legit, stolen, friendly"),
        ({"negative_label": "false"}, "one of legit, stolen, friendly"),
        ({"positive_label": "stolen"}, "left out where classes are declared"),
        ({"mapping": FieldMapping(positive_words=("1",))}, "a label is sent as the word of its class"),
    ],
)
def test_a_contract_that_cannot_be_meant_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        contract(**changes)


def test_labels_are_the_words_of_the_classes() -> None:
    declared = contract(mapping=FieldMapping(negative_words=("OK",)))
    assert [declared.read_label(word) for word in ("stolen", "ok", "true")] == ["stolen", "legit", None]


def said(source: str, name: str, known: int) -> dict[str, Any]:
    at = NOON + timedelta(minutes=known)
    return {
        "prediction_id": "p",
        "label_event_id": f"{source}-{known}",
        "is_positive": name != "legit",
        "label_class": name,
        "labeling_source": source,
        "label_known_at": at,
        "label_received_at": at,
    }


def held(rules: LabelRules, *events: dict[str, Any]) -> list[tuple[str, float]]:
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("prediction_id", "label_event_id", "label_class", "labeling_source")),
            ("is_positive", pa.bool_()),
            ("label_known_at", records.TIMESTAMP),
            ("label_received_at", records.TIMESTAMP),
        ]
    )
    with duckdb.connect() as connection:
        connection.register("events", pa.Table.from_pylist(list(events), schema))
        query = write_resolved_labels_sql(rules, "events", contract().said_column)
        rows = connection.sql(query).to_arrow_table().to_pylist()
    return sorted((row["label_class"], row["vote_share"]) for row in rows if row["holds"])


def test_two_positive_classes_contradict_each_other() -> None:
    """Both say that it is no legitimate payment: compared by that alone, the row would be trained as either."""
    rules = LabelRules(trusted_tiers=(("analyst", "chargeback"),))
    assert held(rules, said("analyst", "stolen", 1), said("chargeback", "friendly", 2)) == []
    assert held(rules, said("analyst", "stolen", 1), said("chargeback", "stolen", 2)) == [("stolen", 1.0)]


def test_a_source_that_names_another_class_corrects_itself() -> None:
    assert held(LabelRules(), said("analyst", "stolen", 1), said("analyst", "friendly", 2)) == [("friendly", 1.0)]


def test_the_class_with_most_votes_holds_and_a_tie_is_a_dispute() -> None:
    rules = LabelRules(trusted_tiers=CROWD, disagreement="majority")
    votes = [said("ann", "stolen", 1), said("bob", "friendly", 2), said("cy", "friendly", 3)]
    assert held(rules, *votes) == [("friendly", 1.0)]
    assert held(rules, *votes[:2]) == []
    assert held(rules, votes[0], votes[1], said("cy", "legit", 3)) == []


def test_soft_labels_are_a_row_for_each_class() -> None:
    rules = LabelRules(trusted_tiers=CROWD, disagreement="soft")
    votes = [said("ann", "stolen", 1), said("bob", "friendly", 2), said("cy", "friendly", 3)]
    assert held(rules, *votes) == [("friendly", pytest.approx(2 / 3)), ("stolen", pytest.approx(1 / 3))]


@pytest.mark.parametrize(
    ("label", "probabilities", "code", "severity"),
    [
        ("stolen", [0.2, 0.5, 0.3], None, None),
        ("stolen", [0.2, 0.3, 0.5], "wrong_class", 0.7),
        ("stolen", [0.6, 0.3, 0.1], "confident_miss", 0.7),
        ("legit", [0.1, 0.5, 0.4], "confident_false_alarm", 0.9),
        ("legit", [0.5, 0.5, 0.0], None, None),
        (None, [0.1, 0.5, 0.4], None, None),
        ("legit", None, None, None),
        ("legit", [None, None, None], None, None),
    ],
)
def test_a_discrepancy_is_a_label_that_was_not_the_most_probable_class(
    label: str | None, probabilities: list[float] | None, code: str | None, severity: float | None
) -> None:
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT {write_class_discrepancy_sql(CLASSES, 'legit')}, {write_class_severity_sql(CLASSES)} "
            "FROM (SELECT $label::VARCHAR AS label_class, $probabilities::DOUBLE[] AS probabilities)",
            {"label": label, "probabilities": probabilities},
        ).fetchone()
    assert found == (code, None if severity is None else pytest.approx(severity))


def test_probabilities_are_read_in_the_order_of_the_contract() -> None:
    odd = contract(classes=("legit", "a.b", "c d"))
    with duckdb.connect() as connection:
        read = odd.write_probabilities_sql("s")
        [(found, absent)] = connection.execute(
            f"""SELECT {read}, {odd.write_probabilities_sql("NULL::VARCHAR")}
            FROM (SELECT '{{"c d": 0.1, "a.b": 0.2, "legit": 0.7}}' AS s)"""
        ).fetchall()
    assert found == [0.7, 0.2, 0.1]
    assert absent is None or absent == [None, None, None]
