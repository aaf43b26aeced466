from datetime import date

import pytest

from flywheel_assets.demo.assistant.people import Vandalism
from flywheel_assets.demo.assistant.play import DayStats
from flywheel_assets.demo.assistant.report import account_for_vandals
from flywheel_assets.records import make_pair_id
from flywheel_assets_tests.demo.assistant.scripted import turn_report

CULPRITS = {"a": Vandalism.SECRET, "b": Vandalism.GRAFFITI, "c": Vandalism.GRAFFITI, "d": Vandalism.TYPO}


def day(vandalism: dict[str, Vandalism]) -> DayStats:
    return DayStats(
        day=date(2026, 9, 1), model_version="base", requests=10, internal=6, lacking_right_call=6, internal_exact=0,
        neutral=4, neutral_exact=4, edited=5, approved=1, predictions_acknowledged=15, feedback_acknowledged=6,
        vandalism=vandalism,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("refused", "trained", "caught", "in_gold", "in_last_training"),
    [
        ({}, (), {}, {"secret": 1, "graffiti": 2, "typo": 1}, 0),
        ({"a": "secret", "d": "trivial_edit"}, (), {"secret": 1, "trivial_edit": 1}, {"graffiti": 2}, 0),
        ({"a": "secret"}, ("b", "honest"), {"secret": 1}, {"graffiti": 2, "typo": 1}, 1),
        ({"honest": "trivial_edit"}, ("b", "c"), {}, {"secret": 1, "graffiti": 2, "typo": 1}, 2),
        (dict.fromkeys("abcd", "rewrite"), ("honest",), {"rewrite": 4}, {}, 0),
    ],
)
def test_every_vandals_edit_is_either_caught_or_in_gold(
    refused: dict[str, str],
    trained: tuple[str, ...],
    caught: dict[str, int],
    in_gold: dict[str, int],
    in_last_training: int,
) -> None:
    turn = turn_report(
        "dpo_gold_v1",
        promoted=True,
        pair_ids=frozenset(make_pair_id("assistant", prediction) for prediction in trained),
    )
    split = [day(dict(list(CULPRITS.items())[:2])), day(dict(list(CULPRITS.items())[2:]))]
    account = account_for_vandals("assistant", split, refused, turn)
    assert (account.caught, account.in_gold, account.in_last_training) == (caught, in_gold, in_last_training)
    assert sum(account.caught.values()) + sum(account.in_gold.values()) == account.edits == len(CULPRITS)


def test_another_applications_pair_is_not_taken_for_a_vandals() -> None:
    turn = turn_report("dpo_gold_v1", promoted=True, pair_ids=frozenset({make_pair_id("another", "b")}))
    assert account_for_vandals("assistant", [day(CULPRITS)], {}, turn).in_last_training == 0


def test_the_sentence_says_so_where_nothing_happened() -> None:
    assert account_for_vandals("assistant", [day({})], {}, None).sentence == "No edit was vandalism."
    assert "0 of them" in account_for_vandals("assistant", [day(CULPRITS)], {}, None).sentence
