"""What another policy would change, told before anything is written; and which small edits recur."""

from dataclasses import replace

import pytest

from flywheel_assets.curation.policy.policy import Policy, build_default_policy
from flywheel_assets.curation.texts.gate import GateRules
from flywheel_assets.errors import MissingInputError
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, QUARANTINE
from flywheel_assets.lake.versions.pair_versions import describe_replacements, find_most_frequent_deltas
from flywheel_assets.lake.whatif.policy_diff import diff_policy
from flywheel_assets_tests.builders import DAY, day, make_feedback
from flywheel_assets_tests.lake.workbench import Workbench

FILE = "\n".join(f"value_{number} = compute(number)" for number in range(40))


def small_edit(user: str) -> dict[str, object]:
    return make_feedback(
        user_id=user, original_output=f"# the colour of rows\n{FILE}", final_text=f"# the color of rows\n{FILE}"
    )


def test_moves_are_counted_by_reason_and_nothing_is_written(bench: Workbench) -> None:
    rows = [make_feedback(), make_feedback(final_text="Check the result, you pathetic loser."), small_edit("ann")]
    bench.land(EventKind.FEEDBACK, DAY, rows)
    bench.land(EventKind.FEEDBACK, day(1), [make_feedback()])
    bench.ingest_both([DAY, day(1)])
    bench.join([DAY, day(1)])
    bench.curate([DAY, day(1)])
    before = bench.rows(CURATED_DPO_PAIRS), bench.rows(QUARANTINE)

    same = diff_policy(bench.lake, [DAY, day(1)], GateRules())
    assert (same.days, same.rows, same.moved, same.stored_versions) == (2, 4, 0, (same.new_version,))

    lenient = Policy(tuple(check for check in build_default_policy().checks if check.name != "toxic_language"))
    found = diff_policy(bench.lake, [DAY, day(1)], replace(GateRules(), policy=lenient))
    assert [(move.before, move.after, move.rows) for move in found.moves] == [("toxic_language", "kept", 1)]
    assert found.moves[0].examples == (rows[1]["event_id"],)
    assert found.new_version not in found.stored_versions
    assert (bench.rows(CURATED_DPO_PAIRS), bench.rows(QUARANTINE)) == before


def test_a_day_that_was_never_curated_is_refused(bench: Workbench) -> None:
    bench.ingest_both([DAY])
    bench.join([DAY])
    with pytest.raises(MissingInputError, match="curated_dpo_pairs was never materialized"):
        diff_policy(bench.lake, [DAY], GateRules())


def test_small_edits_lie_in_gold_held_and_the_most_frequent_are_known(bench: Workbench) -> None:
    for offset, users in enumerate((["ann", "bob"], ["bob", "cy"])):
        bench.land(EventKind.FEEDBACK, day(offset), [small_edit(user) for user in users])
    days = [day(0), day(1)]
    bench.ingest_both(days)
    bench.join(days)
    entries = bench.curate(days)
    assert [(entry.rows_kept, entry.rows_held, entry.balance) for entry in entries.values()] == [(0, 2, 0)] * 2
    [found] = find_most_frequent_deltas(bench.lake)
    assert (found.subjects, found.rows, found.days) == (3, 4, 2)
    assert describe_replacements(bench.lake, found.example) == "colour → color"
