"""Which of several labels holds: the newest statement of a source, the most trusted sources, votes of equals."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets import records
from flywheel_assets.curation.labels.label_resolution import LabelRules, write_resolved_labels_sql
from flywheel_assets.records import SILENCE
from flywheel_assets_tests.builders import NOON

EVENTS = pa.schema(
    [  # type: ignore[arg-type]
        ("prediction_id", pa.string()),
        ("label_event_id", pa.string()),
        ("is_positive", pa.bool_()),
        ("labeling_source", pa.string()),
        ("label_known_at", records.TIMESTAMP),
        ("label_received_at", records.TIMESTAMP),
    ]
)
MAJORITY, SOFT = LabelRules(disagreement="majority"), LabelRules(disagreement="soft")
CROWD = (("ann", "bob", "cy"),)


def said(source: str, positive: bool, known: int, received: int | None = None) -> dict[str, Any]:
    """One label, known and received so many minutes after noon."""
    received = known if received is None else received
    return {
        "prediction_id": "p",
        "label_event_id": None if source == SILENCE else f"{source}-{known}-{received}-{positive}",
        "is_positive": positive,
        "labeling_source": source,
        "label_known_at": NOON + timedelta(minutes=known),
        "label_received_at": NOON + timedelta(minutes=received),
    }


def resolve(rules: LabelRules, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    with duckdb.connect() as connection:
        connection.register("events", pa.Table.from_pylist(list(events), EVENTS))
        return connection.sql(write_resolved_labels_sql(rules, "events")).to_arrow_table().to_pylist()


def held(rules: LabelRules, *events: dict[str, Any]) -> list[tuple[bool, float]]:
    """The classes that hold, with their shares."""
    return sorted((row["is_positive"], row["vote_share"]) for row in resolve(rules, events) if row["holds"])


def test_a_label_said_again_after_its_opposite_holds() -> None:
    assert held(LabelRules(), said("analyst", True, 1), said("analyst", False, 2), said("analyst", True, 3)) == [
        (True, 1.0)
    ]


def test_an_older_statement_that_arrives_later_does_not_hold() -> None:
    """A retry delivered the statement of 31 August after that of 1 September, and it won."""
    assert held(LabelRules(), said("analyst", True, 2, received=3), said("analyst", False, 1, received=4)) == [
        (True, 1.0)
    ]


def test_equal_statements_in_a_row_are_one_that_was_made_when_the_first_was() -> None:
    [row] = [each for each in resolve(LabelRules(), [said("analyst", True, at) for at in (1, 5, 9)]) if each["holds"]]
    assert row["label_known_at"] == NOON + timedelta(minutes=1)


def test_a_source_that_repeats_itself_is_as_new_as_its_repetition() -> None:
    """Of sources in no tier the newest statement wins, also where it only repeats what that source said before."""
    assert held(LabelRules(), said("shop", True, 1), said("bank", False, 2), said("shop", True, 3)) == [(True, 1.0)]


def test_a_more_trusted_label_holds_however_old_it_is_and_any_label_beats_silence() -> None:
    assert held(LabelRules(), said("reviewer", True, 1), said("analyst", False, 2), said(SILENCE, False, 3)) == [
        (True, 1.0)
    ]
    assert held(LabelRules(), said("shop", True, 1), said(SILENCE, False, 3)) == [(True, 1.0)]
    assert held(LabelRules(), said(SILENCE, False, 3)) == [(False, 1.0)]


@pytest.mark.parametrize(
    ("disagreement", "votes", "holding", "is_disputed"),
    [
        ("dispute", (True, True, False), [], True),
        ("dispute", (True, True, True), [(True, 1.0)], False),
        ("majority", (True, True, False), [(True, 1.0)], False),
        ("majority", (False, True, False), [(False, 1.0)], False),
        ("majority", (True, False), [], True),
        ("soft", (True, True, False), [(False, 1 / 3), (True, 2 / 3)], False),
        ("soft", (True, False), [(False, 0.5), (True, 0.5)], False),
        ("soft", (False, False), [(False, 1.0)], False),
    ],
)
def test_votes_of_equals_are_settled_by_rule(
    disagreement: Any, votes: tuple[bool, ...], holding: list[tuple[bool, float]], is_disputed: bool
) -> None:
    """Votes of moderators were disputes: on 24,783 tweets that lost 95 % of those with a vote for hate."""
    for rules in (
        LabelRules(trusted_tiers=CROWD, disagreement=disagreement),
        LabelRules(trusted_tiers=(), unlisted_disagreement=disagreement),
    ):
        events = [said(source, vote, at) for at, (source, vote) in enumerate(zip(CROWD[0], votes, strict=False))]
        assert held(rules, *events) == [(each, pytest.approx(share)) for each, share in holding]
        assert {row["is_disputed"] for row in resolve(rules, events)} == {is_disputed}


def test_a_soft_label_has_one_class_where_rows_are_counted() -> None:
    rules = LabelRules(trusted_tiers=CROWD, disagreement="soft").with_one_class
    assert held(rules, said("ann", True, 1), said("bob", True, 2), said("cy", False, 3)) == [(True, 1.0)]


STATEMENTS = st.lists(
    st.tuples(st.sampled_from(["reviewer", "analyst", "chargeback", "shop", "bank"]), st.booleans()),
    min_size=1,
    max_size=8,
)


@pytest.mark.long
@settings(deadline=None, max_examples=40)
@given(STATEMENTS, st.randoms(use_true_random=False), st.sampled_from([LabelRules(), MAJORITY, SOFT]))
def test_what_holds_does_not_depend_on_the_order_of_receipt(
    statements: list[tuple[str, bool]], random: Any, rules: LabelRules
) -> None:
    received = list(range(len(statements)))
    in_order = held(rules, *(said(source, vote, at) for at, (source, vote) in enumerate(statements)))
    random.shuffle(received)
    shuffled = [said(source, vote, at, received=100 + received[at]) for at, (source, vote) in enumerate(statements)]
    assert held(rules, *shuffled) == in_order
    assert sum(share for _, share in in_order) == pytest.approx(1.0 if in_order else 0.0)
