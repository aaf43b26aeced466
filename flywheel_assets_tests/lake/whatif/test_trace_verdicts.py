"""What a trace says about the verdict of people: for every situation the clause, and why a version lacks the row."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.curation.texts.statements import Agreement
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.trainability import Untrainable
from flywheel_assets.lake.whatif.trace import Trace, Traced, trace_event
from flywheel_assets.records import REVIEWER_SOURCE, make_event_id
from flywheel_assets_tests.builders import APPLICATION, DAY, NOON, day, make_feedback, make_gold
from flywheel_assets_tests.lake.gold import write_gold
from flywheel_assets_tests.lake.workbench import Workbench

PAIRS = ResolutionRules(holdout_share=0.0, accepted_share=1.0)
UP = {"example_kind": "accepted_output", "stance": "approves", "signal": "thumb"}
SAID = {"example_kind": "statement", "prompt": "", "chosen": "", "rejected": None, "similarity": None}
DOWN = {**SAID, "stance": "objects", "signal": "thumb", "refused_reason": "not_trainable_signal"}


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


def trace(bench: Workbench, wanted: str, agreement: Agreement = Agreement.MAJORITY) -> Trace:
    versions = Versions(bench.root / "versions", APPLICATION)
    places = Traced(bench.lake, bench.tables, versions, DiskLanding(bench.landing), bench.landing, 30, agreement)
    return trace_event(places, wanted)


def judged(bench: Workbench, wanted: str, agreement: Agreement = Agreement.MAJORITY) -> list[str]:
    return [step.says for step in trace(bench, wanted, agreement).steps if step.stage == "judged"]


def in_versions(bench: Workbench, wanted: str) -> list[str]:
    return [step.says for step in trace(bench, wanted).steps if step.stage == "version"]


def say(event: str, minute: int, **changes: Any) -> dict[str, Any]:
    at = NOON + timedelta(minutes=minute)
    known = {"prediction_id": "p", "subject": "ann", "occurred_at": at, "feedback_received_at": at, **changes}
    return make_gold(feedback_event_id=event, **known)


def write(bench: Workbench, *rows: dict[str, Any], cut: bool = False) -> None:
    write_gold(bench, DAY, 1)
    bench.write(CURATED_DPO_PAIRS, DAY, [*rows, make_gold()])
    if cut:
        cut_pair_version(bench.lake, Versions(bench.root / "versions", APPLICATION), "dpo_gold_v1", PAIRS, "1")


@pytest.mark.parametrize(
    ("later", "clause"),
    [
        (DOWN, "a thumb down"),
        ({**SAID, "stance": "objects", "signal": "rating"}, "a negative rating"),
        ({**SAID, "stance": "regenerates", "signal": "regenerate"}, "a regenerate"),
        ({**SAID, "stance": "remarks", "signal": "comment"}, "a comment"),
        ({**SAID, "stance": "retracts", "signal": "retract"}, "a retraction"),
        (
            {**SAID, "stance": "changes_refused", "signal": "edit", "refused_reason": "secret"},
            "a text that is no example: secret",
        ),
    ],
)
def test_an_approval_that_was_taken_back_says_by_what(bench: Workbench, later: dict[str, Any], clause: str) -> None:
    write(bench, say("up", 1, **UP), say("later", 2, **later), cut=True)
    assert f"Event up was withdrawn by event later ({clause})." in judged(bench, "up")
    assert in_versions(bench, "up") == [
        f"dpo_gold_v1 does not hold it: event up was withdrawn by event later ({clause})."
    ]


def test_demonstrations_and_objections_say_in_which_file_of_a_version_they_are(bench: Workbench) -> None:
    """The page of such a row was a KeyError."""
    shown = {"example_kind": "demonstration", "signal": "demonstration", "rejected": None, "similarity": None}
    objected = {"example_kind": "objection", "stance": "objects", "signal": "thumb", "source": "reviewer", "chosen": ""}
    write(bench, say("shown", 1, **shown), say("no", 2, prediction_id="q", **objected))
    rules = replace(PAIRS, confirmed_objections=True)
    cut_pair_version(bench.lake, Versions(bench.root / "versions", APPLICATION), "dpo_gold_v1", rules, "1")
    assert in_versions(bench, "shown") == ["dpo_gold_v1 holds it: demonstrations, which training mixes in."]
    assert in_versions(bench, "no") == ["dpo_gold_v1 holds it: objections, for recipes that weigh them."]


def test_an_undone_edit_says_so(bench: Workbench) -> None:
    write(bench, say("edit", 1), say("undo", 2, **{**SAID, "stance": "restores", "signal": "edit"}))
    assert "Event edit was withdrawn by event undo (an undo)." in judged(bench, "edit")


def test_a_newer_text_and_a_newer_revision_supersede(bench: Workbench) -> None:
    texts = [say("first", 1), say("second", 2)]
    revised = [
        say("r2", 4, prediction_id="q", statement_id="s", revision=2),
        say("r1", 5, prediction_id="q", statement_id="s", revision=1),
    ]
    refused = [
        say("a", 1, prediction_id="x", statement_id="t", revision=1),
        say("b", 2, prediction_id="x", statement_id="t", revision=2,
            **{**SAID, "stance": "changes_refused", "refused_reason": "secret"}),
    ]  # fmt: skip
    write(bench, *texts, *revised, *refused)
    assert "Event first is superseded by event second." in judged(bench, "first")
    assert "Event second gives the pair." in judged(bench, "p")
    # The older revision came later: it is still the older one.
    assert "Event r1 is superseded by event r2 (revision 2)." in judged(bench, "q")
    assert "Event a was withdrawn by event b (revision 2, which gives no example: secret)." in judged(bench, "a")


def test_people_who_disagree_are_counted_by_the_applications_rule(bench: Workbench) -> None:
    said = [say("edit", 1), *(say(f"up{each}", 2 + each, subject=f"u{each}", **UP) for each in range(3))]
    write(bench, *said, say("down", 9, subject="eve", **DOWN), cut=True)
    assert "Event edit is outvoted by 3 people." in judged(bench, "edit")
    told = judged(bench, "p")
    assert (
        "Verdict about prediction p: accepted: corrected by 1 person, 3 accepted, 1 objected; by the rule majority "
        "event up2 gives the accepted output."
    ) in told
    assert "Event up0 is superseded by event up2 of another person." in told
    assert any("undecided: corrected by 1 person" in each for each in judged(bench, "p", Agreement.UNANIMOUS))
    # A version is explained by the rule that it was cut with.
    assert in_versions(bench, "edit") == [
        "dpo_gold_v1 holds it: accepted outputs that training mixes in; event up2 gives the accepted output."
    ]


def test_a_reviewer_outweighs_any_number_of_people(bench: Workbench) -> None:
    said = [say(f"up{each}", each, subject=f"u{each}", **UP) for each in range(3)]
    write(bench, *said, say("fix", 5, source=REVIEWER_SOURCE))
    assert "Event up0 is outvoted by 1 person of a more trusted source." in judged(bench, "up0")
    assert any("corrected by 1 person, 0 accepted, 0 objected (3 people of less trusted sources not counted)" in each
               for each in judged(bench, "p"))  # fmt: skip


def test_another_persons_newer_text_takes_the_place(bench: Workbench) -> None:
    write(bench, say("one", 1), say("two", 2, subject="bob", chosen="Another answer."))
    assert "Event one gives way to another person's text." in judged(bench, "one")


def test_a_regenerated_answer_waits_for_its_sibling(bench: Workbench) -> None:
    """The verdict about the sibling, which another event gave, decides about this prediction's comparison."""
    asked = {"example_kind": "comparison", "stance": "regenerates", "signal": "regenerate"}
    again = say("again", 1, sibling_id="q", pair_id="of both", **asked)
    write(bench, again, cut=True)
    assert "Event again waits for the acceptance of answer q." in judged(bench, "again")
    assert in_versions(bench, "again")[0].endswith("waits for the acceptance of answer q.")
    write(bench, again, say("up", 2, prediction_id="q", **UP))
    assert "Event again gives the pair." in judged(bench, "again")
    down = say("down", 3, prediction_id="q", **DOWN)
    write(bench, again, say("up", 2, prediction_id="q", **UP), down)
    assert "Event again waits for the acceptance of answer q." in judged(bench, "again")


def test_choices_against_the_majority_say_so(bench: Workbench) -> None:
    chosen = {"example_kind": "comparison", "stance": "chooses", "signal": "choice", "pair_id": "of both"}
    for_p = [say(f"p{each}", each, subject=f"u{each}", sibling_id="q", **chosen) for each in range(2)]
    for_q = say("q0", 5, prediction_id="q", sibling_id="p", subject="eve", **chosen)
    write(bench, *for_p, for_q)
    assert "Event q0 is outvoted: 2 people preferred the other answer." in judged(bench, "q0")
    assert "Event p1 gives the pair." in judged(bench, "p")


def test_a_statement_says_that_it_holds_no_example(bench: Workbench) -> None:
    write(bench, say("note", 1, **{**SAID, "stance": "remarks", "signal": "comment"}), cut=True)
    assert "Event note is only a statement (remarks) and holds no example." in judged(bench, "note")
    assert in_versions(bench, "note") == [
        "dpo_gold_v1 does not hold it: event note is only a statement (remarks) and holds no example."
    ]


@pytest.mark.long
def test_a_statement_that_was_taken_back_over_http_is_explained_from_the_prediction(bench: Workbench) -> None:
    """`DELETE /v1/{app}/feedback/{id}` lands a retraction without a prediction: only the statement leads to it."""
    event = make_event_id(APPLICATION, "app", "e")
    taken = make_feedback(event_id=event, statement_id=event, prediction_id="p", user_id="ann")
    back = {"event_id": "back", "signal": "retract", "prediction_id": "", "retracts": event, "user_id": "ann"}
    texts = dict.fromkeys(("prompt", "prompt_format", "original_output", "final_text"))
    bench.land(EventKind.FEEDBACK, DAY, [taken])
    later = {"received_at": NOON + timedelta(days=1), "occurred_at": NOON + timedelta(days=1)}
    bench.land(EventKind.FEEDBACK, day(1), [make_feedback(**back, **texts, **later)])
    for step in (bench.ingest_both, bench.join, bench.curate):
        step([DAY, day(1)])
    for wanted in ("p", event):
        assert f"Event {event} was withdrawn by event back (a retraction)." in judged(bench, wanted)
        assert any("it takes back statement" in step.says for step in trace(bench, wanted).steps)


def test_a_row_that_the_tokenizer_refuses_says_the_templates_sentence(bench: Workbench) -> None:
    write_gold(bench, DAY, 2)

    def refuse(rows: Any) -> list[Untrainable]:
        which, row = next(iter(rows))
        return [Untrainable(which, row.pair_id, "template_refused", "Conversation roles must alternate")]

    versions = Versions(bench.root / "versions", APPLICATION)
    cut_pair_version(bench.lake, versions, "dpo_gold_v1", PAIRS, "1", refuse)
    told = {each: in_versions(bench, f"{DAY} {each}") for each in range(2)}
    assert sorted(told.values()) == [
        [
            "dpo_gold_v1 does not hold it: the base model's tokenizer refuses it (template_refused: Conversation roles "
            "must alternate)."
        ],
        ["dpo_gold_v1 holds it: training rows."],
    ]
    refused = next(each for each, says in told.items() if "tokenizer" in says[0])
    assert any("cannot be trained on" in each for each in judged(bench, f"{DAY} {refused}"))


def test_of_duplicates_and_caps_only_counts_are_known_and_the_trace_says_so(bench: Workbench) -> None:
    same = {"prompt": "How?", "chosen": "Like this, with care.", "rejected": "No.", "request_hash": "h"}
    write(bench, say("one", 1, **same), say("two", 2, prediction_id="q", subject="bob", **same), cut=True)
    absent = [says for each in ("one", "two") for says in in_versions(bench, each) if "does not hold" in says]
    assert absent == [
        "dpo_gold_v1 does not hold it: a later step of resolution left it out, of which only counts are kept, by "
        "reason: duplicate 1."
    ]
