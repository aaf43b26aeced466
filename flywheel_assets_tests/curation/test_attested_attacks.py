"""Attacks that stood on free fields of the event, as `benchmarks/poisoning.py` plays them; see docs/curation.md.

Each tells what it brought before senders were attested, at commit 555eb45.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.poisoning import ATTACKS, DAYS, EDITS, SETTLED_DAYS, Attack, curate_days, write_honest, write_poison
from flywheel_assets.curation.texts.resolution import Resolution, ResolutionRules, resolve
from flywheel_assets.curation.texts.statements import ROLES, Role, reduce_statements
from flywheel_assets.records import CURATED_DPO_PAIRS
from flywheel_assets_tests.builders import make_gold, table

NAMED = {attack.name: attack for attack in ATTACKS}
RULES = ResolutionRules()


@pytest.fixture(scope="module")
def honest() -> pa.Table:
    gold, days_out, held = curate_days(write_honest(EDITS, DAYS, 0, "honest"))
    assert (days_out, held) == (0, 0)
    return gold


@pytest.fixture(scope="module")
def kept_without(honest: pa.Table) -> int:
    return int(resolve(honest, RULES).train.num_rows)


def attacked(honest: pa.Table, attack: Attack) -> tuple[float, int]:
    """The poisoned share of a training, and the honest rows of it; no day of these attacks trips."""
    poison, _, held = curate_days(write_poison(attack))
    assert held == 0
    train = resolve(pa.concat_tables([honest, poison]), RULES).train
    poisoned = int(pc.sum(pc.is_in(train["feedback_event_id"], poison["feedback_event_id"])).as_py() or 0)
    return poisoned / train.num_rows, train.num_rows - poisoned


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("one account, word", 0.0),  # 2.8 %: 100 rows, as one unbroken word is in no pair twice
        ("five accounts, phrase", 0.01),  # 6.4 %: they vouched for each other
        ("five accounts, 2,000 edits, word", 0.01),  # 10.2 %
        ("fifty newcomers, phrase", 0.03),  # 7.2 %
        ("fifty newcomers, 2,000 edits, word", 0.03),  # 34.2 %
        ("invented sources: 400 threads, 40 sources, word", 0.01),  # 26.8 %, and 72 % of the honest rows were lost
        ("invented users: 300 ids, one page, word", 0.01),  # 13.2 %
        ("stolen ids: one page, 2,000 edits, phrase", 0.01),  # 33.5 %
    ],
)
def test_an_attack_is_a_small_share_of_a_training_and_costs_no_honest_rows(
    honest: pa.Table, kept_without: int, name: str, most: float
) -> None:
    share, kept = attacked(honest, NAMED[name])
    assert share <= most
    assert kept >= 0.99 * kept_without


@pytest.mark.long
def test_newcomers_who_push_one_thing_are_one_supporter_where_others_were_before(honest: pa.Table) -> None:
    """Fifty accounts of the last ten days say what none of the people says who were there for a month."""
    before, _, _ = curate_days(write_honest(1_000, SETTLED_DAYS, -SETTLED_DAYS, "before"))
    share, _ = attacked(pa.concat_tables([before, honest]), NAMED["fifty newcomers, phrase"])
    assert share == 0


def test_honest_edits_alone_lose_next_to_nothing(honest: pa.Table, kept_without: int) -> None:
    """A quarter of these people has a habit word, in half of what they send."""
    dropped = resolve(honest, RULES).dropped
    assert sum(dropped.values()) < 0.015 * kept_without


# One claim, row by row -----------------------------------------------------------------------------------------------

FEW = ResolutionRules(holdout_share=0.0)


def resolved(*rows: dict[str, Any], rules: ResolutionRules = FEW) -> Resolution:
    return resolve(table(CURATED_DPO_PAIRS, rows), rules)


def claimed(**fields: Any) -> dict[str, Any]:
    return make_gold(**{"attested_source": "web page", "is_attested": False, **fields})


def attested(**fields: Any) -> dict[str, Any]:
    return make_gold(**{"attested_source": "backend", "is_attested": True, **fields})


def test_invented_sources_share_what_their_key_may_bring() -> None:
    people = [attested() for _ in range(100)]
    crowd = [claimed(source=f"made-up-{number}") for number in range(60)]
    resolution = resolved(*people, *crowd, rules=ResolutionRules(holdout_share=0.0, anonymous_cap_per_source=20))
    assert resolution.dropped == {"anonymous_cap": 40}


def test_invented_sources_leave_the_honest_one_its_share() -> None:
    """A relative cap is four even shares: 40 invented sources made a share of an honest one's rows."""
    crowd = [claimed(source=f"made-up-{number}") for number in range(40)]
    assert resolved(*(attested() for _ in range(200)), *crowd).dropped == {}


def test_tenants_that_a_key_names_are_capped_one_by_one() -> None:
    rows = [attested(attested_source=f"tenant-{number % 20}") for number in range(100)]
    resolution = resolved(*rows, *(attested(attested_source="loud") for _ in range(100)))
    assert resolution.dropped == {"source_cap": 50}


def test_claimed_users_are_one_supporter_and_attested_ones_are_each_their_own() -> None:
    """Three people made one small edit: three names of one page are not three people."""
    people = [attested() for _ in range(10)]
    for make, dropped in ((attested, {}), (claimed, {"trivial_edit": 3})):
        small = [make(held_reason="trivial_edit", support_key="k") for _ in range(3)]
        assert resolved(*people, *small).dropped == dropped


def test_where_no_key_vouches_for_people_the_names_count_as_before() -> None:
    """An installation whose pages send no tokens has nobody else to ask."""
    small = [claimed(held_reason="trivial_edit", support_key="k") for _ in range(3)]
    assert resolved(*(claimed() for _ in range(30)), *small).dropped == {}


def test_claimed_users_are_no_evidence_of_support() -> None:
    same = {"prompt": "p", "chosen": "c"}
    people = [attested() for _ in range(10)]
    support = resolved(*people, attested(**same), *(claimed(**same) for _ in range(9))).train["support_users"]
    assert max(support.to_pylist()) == 2


def test_a_copy_by_a_claimed_user_takes_no_attested_row_s_place() -> None:
    """The newest of equal rows stays, and an attacker is always newer."""
    first = attested(prompt="p", chosen="c")
    later = claimed(prompt="p", chosen="c", feedback_received_at=first["feedback_received_at"].replace(hour=23))
    [kept] = [
        row
        for row in resolved(*(attested() for _ in range(10)), first, later).train.to_pylist()
        if row["prompt"] == "p"
    ]
    assert kept["feedback_event_id"] == first["feedback_event_id"]


def roles(*rows: dict[str, Any]) -> list[Role]:
    return [ROLES[code] for code in reduce_statements(table(CURATED_DPO_PAIRS, rows)).role.tolist()]


def statement(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    later = row["feedback_received_at"].replace(hour=23)
    about = {name: row[name] for name in ("prediction_id", "subject", "subject_kind", "source")}
    said = {"example_kind": "statement", "feedback_received_at": later, "occurred_at": later}
    return make_gold(**{**about, **said, **fields})


CLAIMED, ATTESTED = ({"attested_source": key, "is_attested": is_it} for key, is_it in (("web", False), ("app", True)))


@pytest.mark.parametrize(("sent", "role"), [(CLAIMED, Role.CORRECTION), (ATTESTED, Role.WITHDRAWN)])
def test_who_only_claims_to_be_a_person_withdraws_nothing_of_theirs(sent: dict[str, Any], role: Role) -> None:
    """A stolen id took back whatever its owner had said about an output."""
    edit = attested(subject="ann")
    assert roles(edit, statement(edit, stance="restores", **sent))[0] == role


@pytest.mark.parametrize(("sent", "role"), [(CLAIMED, Role.CORRECTION), (ATTESTED, Role.WITHDRAWN)])
def test_a_claimed_retraction_takes_back_nothing_that_is_attested(sent: dict[str, Any], role: Role) -> None:
    edit = attested(subject="ann")
    taken = statement(edit, stance="retracts", retracts=edit["statement_id"], prediction_id="", **sent)
    assert roles(edit, taken)[0] == role


@pytest.mark.parametrize(("sent", "role"), [(CLAIMED, Role.CORRECTION), (ATTESTED, Role.SUPERSEDED)])
def test_a_claimed_revision_replaces_no_attested_statement(sent: dict[str, Any], role: Role) -> None:
    edit = attested(subject="ann")
    same = {name: edit[name] for name in ("statement_id", "prediction_id", "subject")}
    newer = make_gold(**same, revision=5, feedback_received_at=edit["feedback_received_at"], **sent)
    assert _of_pair(roles(edit, newer), sent) == role


def _of_pair(found: Sequence[Role], sent: dict[str, Any]) -> Role:
    """The role of the first row; of two corrections by two people the attested one gives the pair."""
    assert sent["is_attested"] or found[1] != Role.CORRECTION
    return found[0]


# Reputation ----------------------------------------------------------------------------------------------------------


def test_who_is_turned_down_again_and_again_brings_less() -> None:
    """Three refused insults, and nothing that others took up: a quarter of what anyone may bring."""
    rules = ResolutionRules(holdout_share=0.0, per_user_cap=20)
    people = [attested() for _ in range(400)]
    rows = [attested(subject="ann") for _ in range(20)]
    hostile = [
        statement(
            rows[0], prediction_id=f"p-{n}", stance="changes_refused", refused_reason="toxic_language", **ATTESTED
        )
        for n in range(3)
    ]
    assert resolved(*people, *rows, rules=rules).dropped == {}
    assert resolved(*people, *rows, *hostile, rules=rules).dropped == {"statement": 3, "user_cap": 15}
