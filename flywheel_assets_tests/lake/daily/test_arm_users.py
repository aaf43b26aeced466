"""How people received each model's answers, counted per person, version and day."""

from datetime import timedelta
from typing import Any

from flywheel_assets.lake.daily.arm_users import (
    LiveVersions,
    build_arms,
    find_live_versions,
    read_arm_users,
    read_corrections,
    watch_versions,
)
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS, JOINED_FEEDBACK, RAW_PREDICTIONS
from flywheel_assets.measures.live_arms import WatchLimits
from flywheel_assets_tests.builders import DAY, NOON, day, make_gold, make_joined, make_prediction
from flywheel_assets_tests.lake.workbench import Workbench


def serve(bench: Workbench, on: int, rows: list[dict[str, Any]]) -> None:
    bench.write(RAW_PREDICTIONS, day(on), [{**make_prediction(**row), "received_date": day(on)} for row in rows])


def say(bench: Workbench, on: int, rows: list[dict[str, Any]]) -> None:
    given = [make_joined(**{"final_text": None, "completed_date": day(on), **row}) for row in rows]
    bench.write(JOINED_FEEDBACK, day(on), given)


def read(bench: Workbench, *versions: str, until: int = 1) -> dict[tuple[str, str, int], dict[str, Any]]:
    rows = read_arm_users(bench.lake, versions or ("old", "new"), DAY, day(until)).to_pylist()
    return {(row.pop("model_version"), row.pop("person"), (row.pop("day") - DAY).days): row for row in rows}


def counts(interactions: int, **others: int) -> dict[str, int]:
    names = ("edited", "kept", "thumbs_up", "thumbs_down", "regenerated", "corrected_again")
    return {"interactions": interactions, **dict.fromkeys(names, 0), **others}


def test_answers_are_counted_by_what_was_said_about_them(bench: Workbench) -> None:
    """Silence is an answer, too: without it a model whose users write more feedback looks worse."""
    new = {"model_version": "new", "user_id": "ann"}
    serve(bench, 0, [{**new, "prediction_id": each} for each in ("p1", "p2", "p3", "p4", "silent")])
    serve(bench, 1, [{**new, "prediction_id": "p5"}, {"model_version": "old", "user_id": "bob", "prediction_id": "p6"}])
    say(
        bench,
        1,
        [
            {"prediction_id": "p1", "final_text": "another text"},
            {"prediction_id": "p1", "signal": "copy"},
            {"prediction_id": "p2", "output": "same", "final_text": "same"},
            {"prediction_id": "p3", "signal": "thumb", "value": -1.0},
            {"prediction_id": "p3", "signal": "thumb", "value": -1.0},
            {"prediction_id": "p4", "signal": "regenerate"},
            {"prediction_id": "p5", "signal": "thumb", "value": 1.0},
            {"prediction_id": "p5", "signal": "accept"},
            {"prediction_id": "p6", "signal": "thumb", "value": -1.0, "final_text": "a correction with the thumb"},
        ],
    )
    assert read(bench) == {
        ("new", "ann", 0): counts(5, edited=1, kept=1, thumbs_down=1, regenerated=1),
        ("new", "ann", 1): counts(1, kept=1, thumbs_up=1),
        ("old", "bob", 1): counts(1, edited=1, thumbs_down=1),
    }
    assert set(read(bench, "old")) == {("old", "bob", 1)}


def test_feedback_after_the_look_does_not_change_it(bench: Workbench) -> None:
    serve(bench, 0, [{"model_version": "new", "user_id": "ann", "prediction_id": "p"}])
    say(bench, 1, [{"prediction_id": "p", "final_text": "another text"}])
    assert read(bench, until=0) == {("new", "ann", 0): counts(1)}
    assert read(bench, until=1) == {("new", "ann", 0): counts(1, edited=1)}


def test_what_a_person_took_back_or_replaced_does_not_count(bench: Workbench) -> None:
    later = NOON + timedelta(hours=1)
    serve(bench, 0, [{"model_version": "new", "user_id": "ann", "prediction_id": each} for each in ("p1", "p2", "p3")])
    saved = {"prediction_id": "p1", "statement_id": "s1", "output": "same"}
    say(
        bench,
        0,
        [
            {**saved, "revision": 1, "final_text": "changed"},
            {**saved, "revision": 2, "final_text": "same"},
            {"prediction_id": "p2", "statement_id": "s2", "signal": "thumb", "value": -1.0},
            {"prediction_id": "", "signal": "retract", "retracts": "s2", "occurred_at": later},
            {"prediction_id": "p3", "final_text": "changed"},
            {"prediction_id": "p3", "signal": "retract", "occurred_at": later},
        ],
    )
    assert read(bench) == {("new", "ann", 0): counts(3, kept=1)}


def test_imports_reviewers_and_unknown_people_are_left_out(bench: Workbench) -> None:
    serve(
        bench,
        0,
        [
            {"model_version": "new", "user_id": "ann", "prediction_id": "p1"},
            {"model_version": "new", "user_id": "ann", "source": "import:langfuse"},
            {"model_version": "new", "user_id": None},
            {"model_version": "new", "user_id": None, "thread_id": "t1"},
        ],
    )
    say(bench, 0, [{"prediction_id": "p1", "source": "reviewer", "final_text": "another text"}])
    assert read(bench) == {("new", "ann", 0): counts(1), ("new", "t1", 0): counts(1)}


def test_what_had_been_corrected_before_and_is_corrected_again_is_the_live_wrong_answer_rate(bench: Workbench) -> None:
    """One answer has the old call again; one person only rewords; one repeats it, and nobody says so."""
    wrong, right = "orders = db.fetch_all('orders', 5)", "orders = lake.read('orders', limit=5)"
    gold = {"rejected": wrong, "chosen": right}
    bench.write(CURATED_DPO_PAIRS, day(-1), [{**make_gold(pair_id="taught", **gold), "completed_date": day(-1)}])
    reworded = ("# the open invoices", "# the invoices still due")
    bench.write(
        CURATED_DPO_PAIRS,
        DAY,
        [{**make_gold(pair_id="later", rejected=reworded[0], chosen=reworded[1]), "completed_date": DAY}],
    )
    new = {"model_version": "new", "user_id": "ann"}
    serve(bench, 0, [{**new, "prediction_id": each} for each in ("again", "reworded", "unsaid", "kept")])
    say(
        bench,
        0,
        [
            {
                "prediction_id": "again",
                "output": "carts = db.fetch_all('carts', 9)",
                "final_text": "carts = lake.read('carts', limit=9)",
            },
            {"prediction_id": "reworded", "output": reworded[0], "final_text": reworded[1]},
            {"prediction_id": "kept", "signal": "accept"},
        ],
    )
    known = read_corrections(bench.lake, DAY)
    rows = read_arm_users(bench.lake, ["new"], DAY, day(1), known).to_pylist()
    # The pair of the comparison's first day is not known yet: else every edit would repeat itself.
    assert [(row["interactions"], row["edited"], row["corrected_again"]) for row in rows] == [(4, 2, 1)]
    report = watch_versions(bench.lake, LiveVersions("new", "old", DAY), DAY, WatchLimits())
    assert report is not None
    assert report.comparisons["corrected_again"].current_users == 1


def test_people_whom_both_models_served_are_in_neither_arm(bench: Workbench) -> None:
    """Where one model replaces the other for everybody, the comparison would be one of days."""
    people = [("new", "ann"), ("new", "ann"), ("new", "cem"), ("new", "both"), ("old", "bob"), ("old", "both")]
    rows = [{"model_version": version, "user_id": user} for version, user in people]
    serve(bench, 0, [{**row, "prediction_id": f"p{number}"} for number, row in enumerate(rows)])
    say(bench, 0, [{"prediction_id": "p0", "final_text": "another text"}])
    arms = build_arms(read_arm_users(bench.lake, ["old", "new"], DAY, DAY), "new", "old")
    current, predecessor = arms.by_measure["edited"]
    assert arms.in_both == 1
    assert (sorted(current.means), current.interactions) == ([0.0, 0.5], 3)
    assert (list(predecessor.means), predecessor.interactions) == ([0.0], 1)
    assert build_arms(read_arm_users(bench.lake, [], DAY, DAY), "new", "old").by_measure["edited"][0].interactions == 0


def test_the_version_that_began_later_is_current(bench: Workbench) -> None:
    assert find_live_versions(bench.lake, DAY) is None
    serve(bench, 0, [{"model_version": "old"}, {"model_version": "retired"}])
    assert find_live_versions(bench.lake, day(8)) is None  # nobody served within a week
    serve(bench, 8, [{"model_version": "old"}, {"model_version": None}, {"model_version": "x", "source": "import:a"}])
    assert find_live_versions(bench.lake, day(8)) is None
    serve(bench, 9, [{"model_version": "old"}, {"model_version": "a-new"}])
    serve(bench, 10, [{"model_version": "old"}, {"model_version": "a-new"}, {"model_version": "a-new"}])
    assert find_live_versions(bench.lake, day(10)) == LiveVersions("a-new", "old", day(9))
