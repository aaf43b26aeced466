"""What people meant, event by event: joined feedback in, the rows of a version out."""

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_assets.curation.texts import statements
from flywheel_assets.curation.texts.gate import GateRules, curate, withhold
from flywheel_assets.curation.texts.resolution import Resolution, ResolutionRules, resolve
from flywheel_assets.curation.texts.statements import Agreement, Role, reduce_statements
from flywheel_assets.records import CURATED_DPO_PAIRS, JOINED_FEEDBACK, Reason, Signal, make_event_id
from flywheel_assets_tests.builders import APPLICATION, NOON, day, make_gold, make_joined, table
from flywheel_assets_tests.command_line import ROOT

SETS = ("train", "accepted", "holdout", "regression", "demonstrations", "objections")
GATE = GateRules()
EVERYTHING = ResolutionRules(holdout_share=0.0, accepted_share=1.0)
HELD_OUT = replace(EVERYTHING, holdout_share=1.0)

PROMPT = "How do I read a setting from the central store?"
OUTPUT = "Call settings.fetch('number') and check the result for None."
FIXED = "Call store.read('number', default=0): it never returns None."
BETTER = "Read it by store.lookup('number', fallback=7), which raises no error at all."
OTHER = "Use environment variables instead: os.environ has every number."
SECRET = "Call store.read('number') with the token ghp_" + "a1B2c3D4e5F6g7H8i9J0kLmNoPqRsTuVwXyZ"

Event = dict[str, Any]


def say(signal: str, who: str = "ann", **overrides: Any) -> Event:
    """One statement about prediction `a`; `at` is its minute, `sid` its client id."""
    at, sid = overrides.pop("at", None), overrides.pop("sid", None)
    row: Event = {
        "signal": signal,
        "prediction_id": "a",
        "user_id": who or None,
        "prompt": PROMPT,
        "output": OUTPUT,
        "final_text": None,
        "value": None,
        **overrides,
    }
    return {**row, "at": at, "sid": sid}


def edit(text: str = FIXED, who: str = "ann", **overrides: Any) -> Event:
    return say("edit", who, final_text=text, **overrides)


def up(who: str = "ann", **overrides: Any) -> Event:
    return say("thumb", who, value=1.0, **overrides)


def down(who: str = "ann", **overrides: Any) -> Event:
    return say("thumb", who, value=-1.0, **overrides)


def rate(value: float, who: str = "ann", **overrides: Any) -> Event:
    return say("rating", who, value=value, **overrides)


def again(who: str = "ann", **overrides: Any) -> Event:
    """A regeneration of `a` that gave `b`."""
    return say("regenerate", who, sibling_id="b", final_text=OTHER, **overrides)


def choose(preferred: str, other: str, who: str = "ann", **overrides: Any) -> Event:
    texts = {"a": OUTPUT, "b": OTHER}
    row = say("choice", who, final_text=texts[preferred], **overrides)
    return {**row, "prediction_id": preferred, "sibling_id": other, "output": texts[other]}


def about_b(event: Event) -> Event:
    return {**event, "prediction_id": "b", "output": OTHER}


def retract(who: str = "ann", **overrides: Any) -> Event:
    return say("retract", who, output="", **overrides)


def identify(client_id: str) -> str:
    return make_event_id(APPLICATION, "app", client_id)


def unsay(client_id: str, **overrides: Any) -> Event:
    """A retraction by id, as `DELETE /v1/{app}/feedback/{id}` lands it: it knows neither person nor prediction."""
    return say("retract", "", prediction_id="", output="", retracts=identify(client_id), **overrides)


def join(events: Iterable[Event], days: Iterable[int] = ()) -> list[dict[str, Any]]:
    """Rows of joined feedback, a minute apart; `days` says on which day each lies."""
    offsets = list(days)
    rows = []
    for number, event in enumerate(events):
        fields = {name: value for name, value in event.items() if name not in ("at", "sid")}
        at = NOON + timedelta(minutes=number if event["at"] is None else event["at"])
        client_id = event["sid"] or f"event-{number}"
        offset = offsets[number] if offsets else 0
        moment = at + timedelta(days=offset)
        rows.append(
            {
                **make_joined(**fields),
                "completed_date": day(offset),
                "feedback_received_date": day(offset),
                "feedback_event_id": f"{client_id}/{number}",
                "statement_id": identify(client_id),
                "occurred_at": moment,
                "feedback_received_at": moment,
            }
        )
    return rows


def curate_rows(rows: list[dict[str, Any]]) -> pa.Table:
    """Gold of all days; the gate judges each row by itself, so that one call gives what one a day would give."""
    return curate(table(JOINED_FEEDBACK, rows), APPLICATION, GATE).gold


def show(resolution: Resolution) -> dict[str, Any]:
    """The rows of each set as their chosen texts (of an objection the rejected one), without the empty sets."""
    found: dict[str, Any] = {}
    for name in SETS:
        rows = getattr(resolution, name)
        texts = [row["chosen"] or row["rejected"] for row in rows.select(["chosen", "rejected"]).to_pylist()]
        if texts:
            found[name] = sorted(texts)
    return {**found, **({"dropped": resolution.dropped} if resolution.dropped else {})}


def play(events: Iterable[Event], rules: ResolutionRules = EVERYTHING, days: Iterable[int] = ()) -> dict[str, Any]:
    return show(resolve(curate_rows(join(events, days)), rules))


SITUATIONS: dict[str, tuple[list[Event], dict[str, Any]]] = {
    # The six situations that failed.
    "thumb up then down": ([up(), down(comment="wrong after all")], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "accept then regenerate": (
        [say("accept"), say("regenerate")],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "accept then complaint": (
        [say("accept"), say("comment", comment="This is wrong")],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "edit then undo": ([edit(), edit(OUTPUT)], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "thumb down with correction": ([down(final_text=FIXED)], {"train": [FIXED]}),
    "autosave under one id": (
        [edit("Call store.read('number', def", sid="m"), edit(BETTER, sid="m")],
        {"train": [BETTER], "dropped": {"superseded": 1}},
    ),
    # Other orders of one person.
    "thumb down then up": ([down(), up()], {"accepted": [OUTPUT], "dropped": {"statement": 1}}),
    "undo then edit": ([edit(OUTPUT), edit()], {"train": [FIXED], "dropped": {"statement": 1}}),
    "edit, undo, other edit": (
        [edit(), edit(OUTPUT), edit(BETTER)],
        {"train": [BETTER], "dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "regenerate then accept": ([say("regenerate"), say("accept")], {"accepted": [OUTPUT], "dropped": {"statement": 1}}),
    "complaint then accept": (
        [say("comment", comment="hm"), say("accept")],
        {"accepted": [OUTPUT], "dropped": {"statement": 1}},
    ),
    "rating .9 then .1": ([rate(0.9), rate(0.1)], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "rating .9 then .7, which is no praise": (
        [rate(0.9), rate(0.7)],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "rating .1 then .9": ([rate(0.1), rate(0.9)], {"accepted": [OUTPUT], "dropped": {"statement": 1}}),
    "accept, copy and thumb up are one": (
        [say("accept"), say("copy"), up()],
        {"accepted": [OUTPUT], "dropped": {"superseded": 2}},
    ),
    "accept then edit": ([say("accept"), edit()], {"train": [FIXED], "dropped": {"superseded": 1}}),
    "edit then accept: of the edited text": ([edit(), say("accept")], {"train": [FIXED], "dropped": {"superseded": 1}}),
    "edit then thumb down on the output": ([edit(), down()], {"train": [FIXED], "dropped": {"statement": 1}}),
    "edit, undo, then accept": (
        [edit(), edit(OUTPUT), say("accept")],
        {"accepted": [OUTPUT], "dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "thumb down with correction, then thumb up": (
        [down(final_text=FIXED), up()],
        {"train": [FIXED], "dropped": {"superseded": 1}},
    ),
    "a thumb that repeats the output is a thumb": ([up(final_text=OUTPUT)], {"accepted": [OUTPUT]}),
    "a correction that was left empty is none": ([down(final_text=" ")], {"dropped": {"statement": 1}}),
    "rating with correction": ([rate(0.3, final_text=FIXED)], {"train": [FIXED]}),
    "thumb down, then up, then down": (
        [down(), up(), down()],
        {"dropped": {"statement": 2, "withdrawn": 1}},
    ),
    # Newest texts that the gate refuses.
    "edit then a secret": ([edit(), edit(SECRET)], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "autosave of a secret": (
        [edit(sid="m"), edit(SECRET, sid="m")],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "accept then a refused edit": ([say("accept"), edit(SECRET)], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "a refused edit, then accept": ([edit(SECRET), say("accept")], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "newest text without consent": (
        [edit(), edit(BETTER, do_not_train=True)],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "a refused edit, then a good one": ([edit(SECRET), edit()], {"train": [FIXED], "dropped": {"statement": 1}}),
    # Revisions.
    "revision outranks time": (
        [edit(BETTER, sid="m", revision=2), edit(sid="m", revision=1)],
        {"train": [BETTER], "dropped": {"superseded": 1}},
    ),
    "a thumb revised under its id": ([up(sid="m"), down(sid="m")], {"dropped": {"statement": 1, "withdrawn": 1}}),
    # Retractions.
    "edit, retracted by id": ([edit(sid="m"), unsay("m")], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "edit and thumb, retracted by prediction": (
        [edit(), up(), retract()],
        {"dropped": {"statement": 1, "withdrawn": 2}},
    ),
    "retracted, then said again": (
        [up(), retract(), up()],
        {"accepted": [OUTPUT], "dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "retraction of a thumb down": (
        [say("accept", "bob"), down(sid="m"), unsay("m")],
        {"accepted": [OUTPUT], "dropped": {"statement": 2}},
    ),
    "another person's retraction takes nothing back": (
        [edit(), retract("bob")],
        {"train": [FIXED], "dropped": {"statement": 1}},
    ),
    "a retraction that was retracted": (
        [edit(sid="m"), unsay("m", sid="r"), unsay("r")],
        {"train": [FIXED], "dropped": {"statement": 2}},
    ),
    "retraction of an undo": (
        [edit(), edit(OUTPUT, sid="m"), unsay("m")],
        {"train": [FIXED], "dropped": {"statement": 2}},
    ),
    "retraction before the statement": (
        [unsay("m"), edit(sid="m")],
        {"train": [FIXED], "dropped": {"statement": 1}},
    ),
    "anonymous retraction": (
        [edit(who=""), retract("", prompt=None)],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    # Two and three people.
    "one copies, two object": (
        [say("copy", "ann"), down("bob"), down("cyd")],
        {"dropped": {"outvoted": 1, "statement": 2}},
    ),
    "two accept, one objects": (
        [say("accept", "ann"), up("bob"), down("cyd")],
        {"accepted": [OUTPUT], "dropped": {"statement": 1, "superseded": 1}},
    ),
    "one accepts, one edits": (
        [edit(), say("accept", "bob")],
        {"train": [FIXED], "dropped": {"outvoted": 1}},
    ),
    "two accept, one edits": (
        [edit(), say("accept", "bob"), up("cyd")],
        {"accepted": [OUTPUT], "dropped": {"outvoted": 1, "superseded": 1}},
    ),
    "two edit differently: the newest": (
        [edit(BETTER, "bob"), edit(FIXED, "ann")],
        {"train": [FIXED], "dropped": {"outvoted": 1}},
    ),
    "two edit alike": (
        [edit(FIXED, "bob"), edit(FIXED, "ann")],
        {"train": [FIXED], "dropped": {"superseded": 1}},
    ),
    "one edits, another objects": ([edit(), down("bob")], {"train": [FIXED], "dropped": {"statement": 1}}),
    "one accepts, one objects": ([up(), down("bob")], {"dropped": {"outvoted": 1, "statement": 1}}),
    "an accept, and a refused edit of another": (
        [say("accept"), edit(SECRET, "bob")],
        {"accepted": [OUTPUT], "dropped": {"statement": 1}},
    ),
    "one changes their mind against two": (
        [up("ann"), up("bob"), down("cyd"), down("bob")],
        {"dropped": {"outvoted": 1, "statement": 2, "withdrawn": 1}},
    ),
    # Trust.
    "a reviewer's edit against two users": (
        [edit(BETTER, source="reviewer"), up("bob"), up("cyd")],
        {"train": [BETTER], "dropped": {"outvoted": 2}},
    ),
    "a reviewer's edit, then the user's undo": (
        [edit(BETTER, source="reviewer"), edit(OUTPUT)],
        {"train": [BETTER], "dropped": {"statement": 1}},
    ),
    "a reviewer's accept against an edit": (
        [edit(), say("accept", source="reviewer")],
        {"accepted": [OUTPUT], "dropped": {"outvoted": 1}},
    ),
    "a reviewer's remark decides nothing": (
        [edit(), say("comment", comment="rejected", source="reviewer")],
        {"train": [FIXED], "dropped": {"statement": 1}},
    ),
    "people outrank an import": (
        [up("bob"), edit(source="import:old.jsonl", who="cyd")],
        {"accepted": [OUTPUT], "dropped": {"outvoted": 1}},
    ),
    # Anonymous people.
    "anonymous threads are people": (
        [say("accept", "", thread_id="t1"), down("", thread_id="t2")],
        {"dropped": {"outvoted": 1, "statement": 1}},
    ),
    "one anonymous thread changes its mind": (
        [say("accept", "", thread_id="t1"), down("", thread_id="t1")],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "people without any id are one": (
        [say("accept", ""), down("")],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    # Comparisons.
    "regenerate, and nothing about the sibling": ([again()], {"dropped": {"awaiting_choice": 1}}),
    "regenerate, then accept of the sibling": (
        [again(), about_b(say("accept"))],
        {"train": [OTHER], "accepted": [OTHER]},
    ),
    "regenerate, then the sibling is edited": (
        [again(), about_b(edit())],
        {"train": [FIXED], "dropped": {"awaiting_choice": 1}},
    ),
    "regenerate, accept of the sibling, then a thumb down": (
        [again(), about_b(say("accept")), about_b(down())],
        {"dropped": {"awaiting_choice": 1, "statement": 1, "withdrawn": 1}},
    ),
    "edit, regenerate, accept of the sibling": (
        [edit(), again(), about_b(up())],
        {"train": [OTHER], "accepted": [OTHER], "dropped": {"withdrawn": 1}},
    ),
    "accept, regenerate, accept of the sibling": (
        [say("accept"), again(), about_b(up())],
        {"train": [OTHER], "accepted": [OTHER], "dropped": {"withdrawn": 1}},
    ),
    "a regeneration taken back": (
        [again(sid="m"), about_b(up()), unsay("m")],
        {"accepted": [OTHER], "dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "choice": ([choose("b", "a")], {"train": [OTHER]}),
    "choice flipped": ([choose("b", "a"), choose("a", "b")], {"train": [OUTPUT], "dropped": {"superseded": 1}}),
    "choices of two people tie": (
        [choose("b", "a"), choose("a", "b", "bob")],
        {"dropped": {"outvoted": 2}},
    ),
    "choices of three people": (
        [choose("b", "a"), choose("a", "b", "bob"), choose("b", "a", "cyd")],
        {"train": [OTHER], "dropped": {"outvoted": 1, "superseded": 1}},
    ),
    "a reviewer's choice": (
        [choose("b", "a"), choose("b", "a", "bob"), choose("a", "b", "cyd", source="reviewer")],
        {"train": [OUTPUT], "dropped": {"outvoted": 2}},
    ),
    "an explicit choice outranks a regeneration": (
        [choose("a", "b"), again(), about_b(up())],
        {"train": [OUTPUT], "accepted": [OTHER], "dropped": {"superseded": 1}},
    ),
    "a choice and a regeneration of two people agree": (
        [choose("b", "a", "bob"), again(), about_b(up())],
        {"train": [OTHER], "accepted": [OTHER], "dropped": {"superseded": 1}},
    ),
    "a choice retracted": ([choose("b", "a", sid="m"), unsay("m")], {"dropped": {"statement": 1, "withdrawn": 1}}),
    "a choice of the refused": (
        [choose("b", "a"), {**choose("a", "b"), "final_text": SECRET}],
        {"dropped": {"statement": 1, "withdrawn": 1}},
    ),
    "a choice between equal answers": (
        [{**choose("a", "b"), "output": OUTPUT}],
        {"dropped": {"statement": 1}},
    ),
    "a choice is never a rewrite": (
        [{**choose("b", "a"), "output": "Dear customer, your parcel was lost.", "final_text": "42 km; ask Ben"}],
        {"train": ["42 km; ask Ben"]},
    ),
    "a choice and an edit of the preferred answer are two examples": (
        [{**choose("b", "a"), "sibling_id": None}, about_b(edit(BETTER))],
        {"train": [BETTER, OTHER]},
    ),
    # Demonstrations and objections.
    "demonstration": ([say("demonstration", final_text=FIXED, output="")], {"demonstrations": [FIXED]}),
    "demonstration revised": (
        [
            say("demonstration", final_text=FIXED, output="", sid="m"),
            say("demonstration", final_text=BETTER, output="", sid="m"),
        ],
        {"demonstrations": [BETTER], "dropped": {"superseded": 1}},
    ),
    "an empty demonstration": ([say("demonstration", final_text=" ", output="")], {"dropped": {"statement": 1}}),
    "an objection that a reviewer confirmed": (
        [up(), down("rev", source="reviewer")],
        {"dropped": {"outvoted": 1, "statement": 1}},
    ),
    # Reasoning.
    "an edit that only removed the reasoning": (
        [edit(OUTPUT, output=f"<think>hm</think>\n{OUTPUT}")],
        {"dropped": {"statement": 1}},
    ),
    "an edit of an answer with reasoning": ([edit(output=f"<think>hm</think>\n{OUTPUT}")], {"train": [FIXED]}),
    "accept of an answer with reasoning": (
        [say("accept", output=f"<think>hm</think>{OUTPUT}")],
        {"accepted": [OUTPUT]},
    ),
    "accept of reasoning alone": ([say("accept", output="<think>hm")], {"dropped": {"statement": 1}}),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SITUATIONS)
def test_a_version_holds_what_people_meant(name: str) -> None:
    events, expected = SITUATIONS[name]
    gold = curate_rows(join(events))
    resolution = resolve(gold, EVERYTHING)
    assert show(resolution) == expected
    assert sum(getattr(resolution, which).num_rows for which in SETS) + sum(resolution.dropped.values()) == len(gold)
    # Held out, the same rows are the other two sets; nothing is trained on.
    moved = {"train": "holdout", "demonstrations": "holdout", "accepted": "regression"}
    assert show(resolve(gold, HELD_OUT)) == {moved.get(which, which): rows for which, rows in expected.items()}
    # Every event on a day of its own, two weeks apart: retractions and revisions know no window.
    assert play(events, days=[14 * number for number in range(len(events))]) == expected


def test_an_objection_is_a_row_only_where_the_rules_ask_for_it() -> None:
    events = [up(), down("rev", source="reviewer"), down("bob")]
    rules = replace(EVERYTHING, confirmed_objections=True)
    assert play(events, rules) == {"objections": [OUTPUT], "dropped": {"outvoted": 1, "statement": 1}}
    assert play(events, replace(rules, holdout_share=1.0)) == {"dropped": {"outvoted": 1, "statement": 2}}
    assert play([down()], rules) == {"dropped": {"statement": 1}}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([choose("b", "a")], "comparison"),
        ([choose("b", "a", source="reviewer")], "comparison"),
        ([choose("b", "a"), about_b(up("bob"))], "confirmed_comparison"),
        ([choose("b", "a"), up("bob")], "comparison"),
        ([choose("b", "a"), about_b(up("bob")), about_b(down("cyd"))], "comparison"),
        ([choose("b", "a"), about_b(edit(BETTER, "bob"))], "comparison"),
        ([{**choose("b", "a"), "sibling_id": None}, about_b(up("bob"))], "confirmed_comparison"),
        ([again(), about_b(up())], "confirmed_comparison"),
    ],
)
def test_a_winner_that_people_accepted_is_told_from_one_that_is_only_better(events: list[Event], expected: str) -> None:
    """Of two wrong answers people choose the lesser evil, and the trainer wrote it as if it were right."""
    train = resolve(curate_rows(join(events)), EVERYTHING).train
    compared = [row for row in train.to_pylist() if row["example_kind"] == "comparison"]
    assert [row["admitted_as"] for row in compared] == [expected]


@pytest.mark.parametrize(
    ("events", "majority", "newest", "unanimous"),
    [
        ([up("ann"), up("bob"), down("cyd")], ["accepted"], [], []),
        ([down("cyd"), up("ann")], [], ["accepted"], []),
        ([up("ann"), edit(who="bob")], ["train"], ["train"], []),
        ([edit(who="bob"), up("ann")], ["train"], ["accepted"], []),
        ([edit(who="bob"), down("ann")], ["train"], [], ["train"]),
        ([up("ann"), up("bob")], ["accepted"], ["accepted"], ["accepted"]),
        ([choose("b", "a"), choose("a", "b", "bob"), choose("b", "a", "cyd")], ["train"], ["train"], []),
        ([choose("b", "a"), choose("a", "b", "bob")], [], ["train"], []),
    ],
)
def test_a_configured_rule_decides_between_people(
    events: list[Event], majority: list[str], newest: list[str], unanimous: list[str]
) -> None:
    for agreement, expected in zip(Agreement, (majority, newest, unanimous), strict=True):
        found = play(events, replace(EVERYTHING, agreement=agreement))
        assert [name for name in SETS if name in found] == expected, agreement


def test_other_peoples_corrections_of_the_same_output_support_a_small_edit() -> None:
    """Three people of one thread mend the same word: only the newest row is the pair, but all three said so."""
    rows = [
        make_gold(prediction_id="p", subject=who, held_reason="trivial_edit", support_key="k")
        for who in ("a", "b", "c")
    ]
    resolution = resolve(table(CURATED_DPO_PAIRS, rows), EVERYTHING)
    assert resolution.train["admitted_as"].to_pylist() == ["recurring_small_edit"]
    withdrawn = [
        make_gold(
            prediction_id="p",
            subject="c",
            example_kind="statement",
            stance="restores",
            occurred_at=NOON.replace(hour=20),
        )
    ]
    resolution = resolve(table(CURATED_DPO_PAIRS, rows + withdrawn), EVERYTHING)
    assert resolution.train.num_rows == 0


def test_gold_of_an_earlier_release_has_the_stance_of_its_kind() -> None:
    """Its rows have no stance and no statement id; they count as edits and approvals, each a statement of its own."""
    old = {"stance": None, "statement_id": None}
    rows = [make_gold(**old), make_gold(example_kind="accepted_output", **old)]
    schema = pa.schema([field.with_nullable(True) for field in CURATED_DPO_PAIRS])
    verdicts = reduce_statements(table(schema, rows))
    assert [statements.ROLES[code] for code in verdicts.role] == [Role.CORRECTION, Role.ACCEPTANCE]


def test_a_withheld_day_says_nothing() -> None:
    curated = curate(table(JOINED_FEEDBACK, join([edit(), down("bob")])), APPLICATION, GATE)
    tripped = withhold(curated, Reason.BREAKER_TRIPPED, "burst", "policy")
    assert (tripped.gold.num_rows, tripped.counts) == (0, {"breaker_tripped": 1, "not_trainable_signal": 1})


def test_a_statement_holds_no_text() -> None:
    [row] = curate_rows(join([edit(SECRET)])).to_pylist()
    assert (row["example_kind"], row["stance"], row["refused_reason"]) == ("statement", "changes_refused", "secret")
    assert (row["prompt"], row["chosen"], row["rejected"], row["tools"]) == ("", "", None, None)
    assert "ghp_" not in str(row)


def test_messages_follow_their_texts_without_reasoning() -> None:
    thought = '{"role":"assistant","content":"<think>hm</think>x","tool_calls":[{"function":{"name":"f"}}]}'
    plain = '{"role":"assistant","content":"y","reasoning_content":"hm"}'
    [row] = curate_rows(join([edit(output_message=thought, final_message=plain)])).to_pylist()
    assert row["rejected_message"] == (
        '{"role":"assistant","content":"x","tool_calls":[{"function":{"name":"f","arguments":{}},"type":"function"}]}'
    )
    assert row["chosen_message"] is None
    [row] = curate_rows(join([say("accept", output_message=thought)])).to_pylist()
    assert (row["chosen_message"] is not None, row["rejected_message"]) == (True, None)


def test_the_documents_show_the_rules_that_the_code_follows() -> None:
    rules = re.findall(r"^\|.*\|$", statements.__doc__ or "", re.MULTILINE)
    assert len(rules) == 14
    page = (ROOT / "docs" / "gold.md").read_text()
    assert all(re.sub(r"`", "", line) in re.sub(r"`", "", page) for line in rules)


# Properties.

TEXTS = (FIXED, BETTER, OUTPUT, SECRET)


def _draw_event(
    kind: str, who: str, text: str, is_about_b: bool, sid: int, revision: int | None, source: str, is_private: bool
) -> Event:
    common: dict[str, Any] = {"source": source, "sid": f"s{sid}", "revision": revision}
    common["do_not_train"] = is_private
    match kind:
        case "edit":
            event = edit(text, who, **common)
        case "up":
            event = up(who, **common)
        case "down":
            event = down(who, **common)
        case "correction":
            event = down(who, final_text=text, **common)
        case "again":
            return again(who, **common)
        case "choice":
            return choose(*("ba" if is_about_b else "ab"), who, **common)
        case "retract":
            event = retract(who, **common)
        case "unsay":
            return unsay(f"s{(sid + 1) % 5}", **common)
        case _:
            event = say(kind, who, **common)
    return about_b(event) if is_about_b else event


EVENTS = st.lists(
    st.builds(
        _draw_event,
        st.sampled_from(
            [
                "edit",
                "edit",
                "up",
                "down",
                "correction",
                "accept",
                "regenerate",
                "again",
                "choice",
                "comment",
                "retract",
                "unsay",
            ]
        ),
        st.sampled_from(["ann", "bob", "cyd", ""]),
        st.sampled_from(TEXTS),
        st.booleans(),
        st.integers(0, 4),
        st.none() | st.integers(0, 3),
        st.sampled_from(["app", "app", "app", "reviewer", "import:x"]),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=9,
)
PROPERTY = settings(max_examples=40, deadline=None)
AGREEMENTS = st.sampled_from(list(Agreement))


@pytest.mark.long
@PROPERTY
@given(EVENTS, st.lists(st.integers(0, 9), min_size=9, max_size=9), st.randoms(), AGREEMENTS)
def test_the_verdict_depends_neither_on_the_order_of_rows_nor_on_their_days(
    events: list[Event], days: list[int], random: Any, agreement: Agreement
) -> None:
    """The same events, at the same times, in one day or over ten, in any order of arrival."""
    rows = join(events)
    rules = replace(EVERYTHING, agreement=agreement, confirmed_objections=True)
    once = resolve(curate_rows(rows), rules)
    spread = [{**row, "completed_date": day(offset)} for row, offset in zip(rows, days, strict=False)]
    random.shuffle(spread)
    later = resolve(curate_rows(spread), rules)
    assert later.dropped == once.dropped
    for name in SETS:
        assert getattr(later, name).drop("completed_date").equals(getattr(once, name).drop("completed_date")), name
    assert sum(getattr(once, name).num_rows for name in SETS) + sum(once.dropped.values()) == len(rows)


@pytest.mark.long
@PROPERTY
@given(EVENTS, EVENTS, AGREEMENTS)
def test_a_revision_never_leaves_the_older_text_in(
    before: list[Event], after: list[Event], agreement: Agreement
) -> None:
    newest = edit(BETTER, "ann", sid="mine", revision=2)
    events = [*before, edit("Old words of mine that were saved too early.", "ann", sid="mine"), *after, newest]
    found = play(events, replace(EVERYTHING, agreement=agreement))
    assert not any("too early" in text for name in SETS for text in found.get(name, []))


@pytest.mark.long
@PROPERTY
@given(EVENTS, AGREEMENTS, st.booleans())
def test_a_retraction_removes_whatever_came_before_it(
    events: list[Event], agreement: Agreement, is_named: bool
) -> None:
    mine = edit("A text that ann will take back, whatever the others say.", sid="mine")
    taken_back = unsay("mine", sid="last") if is_named else retract(sid="last")
    found = play([*events, mine, taken_back], replace(EVERYTHING, agreement=agreement))
    assert not any("take back" in text for name in SETS for text in found.get(name, []))


@pytest.mark.long
@PROPERTY
@given(EVENTS, AGREEMENTS, st.booleans())
def test_a_refused_newest_text_revives_no_older_one(
    events: list[Event], agreement: Agreement, is_private: bool
) -> None:
    mine = edit("An older text of ann, which nothing may revive.", sid="older")
    refused = edit(BETTER, sid="newer", do_not_train=True) if is_private else edit(SECRET, sid="newer")
    found = play(
        [mine, *(e for e in events if e["signal"] != Signal.RETRACT), refused], replace(EVERYTHING, agreement=agreement)
    )
    assert not any("revive" in text for name in SETS for text in found.get(name, []))
