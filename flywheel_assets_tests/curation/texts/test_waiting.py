"""Small edits and changed facts: they wait, and enough people bring them in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flywheel_assets.curation.policy.facts import find_unsupported, read_facts
from flywheel_assets.curation.policy.policy import build_default_policy
from flywheel_assets.curation.texts.gate import Curated, GateRules, curate
from flywheel_assets.curation.texts.resolution import Resolution, ResolutionRules, resolve
from flywheel_assets.curation.texts.waiting import compute_delta, hash_delta
from flywheel_assets.records import CURATED_DPO_PAIRS, JOINED_FEEDBACK
from flywheel_assets_tests.builders import make_gold, make_joined, table

PADDING = "\n".join(f"The value of number {number} is read once and then kept." for number in range(60))


def small_edit(**fields: Any) -> dict[str, Any]:
    """One spelling inside a long text: no model is taught by it, unless many people want it."""
    before = f"{PADDING}\nThe colour of the rows is grey.\n{PADDING}"
    return make_joined(**{"output": before, "final_text": before.replace("colour", "color"), **fields})


def gate(*rows: dict[str, Any], **rules: Any) -> Curated:
    return curate(table(JOINED_FEEDBACK, rows), "assistant", GateRules(**rules))


def resolved(*held: dict[str, Any]) -> Resolution:
    rows = [{"held_reason": "trivial_edit", "support_key": "k", **row} for row in held]
    return resolve(table(CURATED_DPO_PAIRS, [make_gold(**row) for row in rows]), ResolutionRules(holdout_share=0.0))


def test_a_small_edit_waits_in_quarantine_and_in_gold_with_its_delta() -> None:
    curated = gate(small_edit(), small_edit(prompt="another question about the same call"))
    assert (curated.kept.num_rows, curated.counts) == (0, {"trivial_edit": 2})
    keys = curated.waiting["support_key"].to_pylist()
    assert keys[0] == keys[1] == hash_delta("colour of x", "color of x")
    assert curated.waiting["held_reason"].to_pylist() == ["trivial_edit"] * 2
    assert all(f"waits for {keys[0]}" in detail for detail in curated.refused["detail"].to_pylist())


def test_a_small_edit_that_the_policy_refuses_does_not_wait() -> None:
    for vandalism in ("fuck_off", "colour, you_moron"):
        curated = gate(small_edit(final_text=small_edit()["output"].replace("colour", vandalism)))
        assert (curated.counts, curated.waiting.num_rows) == ({"toxic_language": 1}, 0)


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        (("colour of x", "color of x"), ("a colour", "a color"), True),
        (("get(a); get(b)", "read(a); read(b)"), ("x = get(c)", "x = read(c)"), True),
        (("f(x)", "f((x)"), ("g(y)", "g((y)"), False),
        (("y = f(x)", "y = f((x)"), ("z = f(x)", "z = f((x)"), True),
        (("a = 1", "a = 2"), ("b = 1", "b = 2"), False),
        (("x = rows[0]", "x = rows[-1]"), ("y = rows[0]", "y = rows[-1]"), True),
        (("从 东门 进入", "从 西门 进入"), ("从 东门 进入 公园", "从 西门 进入 公园"), True),
    ],
)
def test_signs_and_digits_recur_only_with_what_surrounds_them(
    first: tuple[str, str], second: tuple[str, str], agree: bool
) -> None:
    """165 of 982 small edits had no key and waited for ever; nine vandals who double a bracket must not agree."""
    keys = [hash_delta(*first), hash_delta(*second)]
    assert None not in keys
    assert (keys[0] == keys[1]) is agree


def test_single_replacements_recur_in_whatever_edits() -> None:
    """Of 982 small edits only 14 recurred as a whole, 325 with one of their replacements."""
    both = hash_delta("colour and centre", "color and center")
    one, other = hash_delta("colour", "color"), hash_delta("centre", "center")
    assert both == " ".join(sorted(filter(None, (one, other))))
    people = [{"subject": name, "support_key": both} for name in ("ann", "bob")]
    assert resolved(*people, {"subject": "cy", "support_key": one}).train.num_rows == 1
    assert resolved(*people, *({"subject": "cy", "support_key": key} for key in (one, other))).train.num_rows == 4
    assert hash_delta("a", "a") is None


def test_a_substantial_small_change_is_kept_and_says_why() -> None:
    """The founding story inside a long file: one call is right afterwards."""
    code = "\n".join(f"value_{number} = compute(number={number})" for number in range(60))
    before = f"{code}\nrows = ledger.get_table(name)\n{code}"
    row = make_joined(output=before, final_text=before.replace("get_table", "read"))
    kept = gate(row).kept
    assert kept["admitted_by"].to_pylist() == ["call"]
    assert kept["similarity"][0].as_py() > 0.99
    assert gate(row, edit_rule="seed").counts == {"trivial_edit": 1}
    assert gate(make_joined()).kept["admitted_by"].to_pylist() == [None]


def test_a_delta_does_not_depend_on_where_or_how_often() -> None:
    once, twice = compute_delta("get(a) + 1", "read(a) + 1"), compute_delta("x; get(a); get(b)", "x; read(a); read(b)")
    assert once == twice == [(["get"], ["read"])]


@pytest.mark.parametrize(
    ("subjects", "admitted"),
    [
        ([{"subject": name} for name in ("ann", "bob", "cy")], 3),
        ([{"subject": name} for name in ("ann", "bob")], 0),
        ([{"subject": "ann"}] * 20, 0),
        ([{"subject": f"t{number}", "subject_kind": "thread"} for number in range(20)], 0),
        ([{"subject": "ann"}, {"subject": "bob"}, {"subject": "t1", "subject_kind": "thread"}], 3),
        ([{"subject": "ann", "source": "reviewer"}], 1),
        ([{"subject": name, "support_key": name} for name in ("ann", "bob", "cy")], 0),
        ([{"subject": name, "held_reason": "unsupported_fact"} for name in ("ann", "bob")], 2),
        ([{"subject": "ann", "held_reason": "unsupported_fact"}] * 2, 0),
    ],
)
def test_how_many_people_bring_a_waiting_row_in(subjects: list[dict[str, Any]], admitted: int) -> None:
    resolution = resolved(*subjects)
    assert resolution.train.num_rows == admitted
    assert sum(resolution.dropped.values()) == len(subjects) - admitted
    expected = "confirmed_fact" if "held_reason" in subjects[0] else "recurring_small_edit"
    assert set(resolution.train["admitted_as"].to_pylist()) <= {expected}


def test_a_row_that_waits_supersedes_nothing() -> None:
    rows = [
        make_gold(prediction_id="p"),
        make_gold(prediction_id="p", held_reason="trivial_edit", support_key="k", source="app"),
    ]
    resolution = resolve(table(CURATED_DPO_PAIRS, rows), ResolutionRules(holdout_share=0.0))
    # It is outvoted, and not only unsupported: with support it would not have come first either.
    assert resolution.dropped == {"outvoted": 1}
    assert resolution.train["held_reason"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "kinds"),
    [
        ("", "It was built in 1978.", "It was built in 1987.", {"number"}),
        ("the year is 1978", "It was built in 1978.", "It was built in 1987.", set()),
        ("", "It was built in 1987, in 3 years.", "It was built in 1987.", set()),
        ("", "It cost 1000 euro.", "It cost 1,000.00 euro.", set()),
        ("seven of them", "There are 7.", "There are 8.", set()),
        ("", "On 3 May 2020", "On 3 June 2020", {"number"}),
        ("", "You may go 5 times", "You could go 5 times", set()),
        ("", "See https://evil.example/x", "See the manual.", {"address"}),
        ("", "See https://docs.python.org/4", "See http://www.docs.python.org/3", set()),
        ("docs.io: https://docs.io", "See https://docs.io/a", "See the manual.", set()),
        ("", "1. read\n2. write", "- read\n- write", set()),
        ("", "Call read(limit=10)", "Call get(5)", {"number"}),
        (
            "The plant is not for sale.",
            "The plant is for sale today.",
            "The plant is not for sale today.",
            {"negation"},
        ),
        ("The plant is for sale.", "The plant isn't for sale.", "The plant is for sale.", {"negation"}),
        ("The plant is not for sale.", "The plant is not for sale.", "The plant is for sale.", set()),
        ("What about it?", "The plant is for sale today.", "The plant is not for sale today.", set()),
        ("Is it for sale or is it not for sale?", "It is for sale.", "It is not for sale.", set()),
        ("The plant is not for sale.", "Nobody buys a plant.", "The plant is not for sale.", set()),
        ("I know the way.", "I see the way.", "I know the way.", set()),
    ],
)
def test_a_changed_fact_needs_support(prompt: str, chosen: str, rejected: str, kinds: set[str]) -> None:
    found = find_unsupported(prompt, chosen, rejected)
    assert {kind for kind, values in found.items() if values} == kinds


def test_facts_are_compared_by_value() -> None:
    assert read_facts("1,000.50 and 007 and v1.2.3 and x86 and 3%").numbers == {"1000.5", "7", "3"}


def test_changed_facts_wait_for_a_second_person_and_not_where_it_is_turned_off() -> None:
    def row(**fields: Any) -> dict[str, Any]:
        texts = {
            "output": "It was opened in 1987.",
            "final_text": "It was opened in 1978.",
        }
        return make_joined(prompt="Tell me about the bridge.", **texts, **fields)

    curated = gate(row(user_id="ann"), row(user_id="bob"))
    assert curated.counts == {"unsupported_fact": 2}
    assert resolve(curated.waiting, ResolutionRules(holdout_share=0.0)).train["admitted_as"].to_pylist() == [
        "confirmed_fact"
    ]
    assert resolve(curated.waiting.slice(1), ResolutionRules(holdout_share=0.0)).dropped == {"unsupported_fact": 1}
    assert gate(row(), policy=build_default_policy(factual_integrity=False)).kept.num_rows == 1


def test_two_turned_negations_of_one_prompt_do_not_confirm_each_other() -> None:
    """Every edit that turns a negation around passed unseen; each waits for a second person with the same one."""
    prompt = "The plant is not for sale, and the yard is not to let."
    sale = prompt.replace("is not for", "is for")
    let = prompt.replace("is not to", "is to")
    curated = gate(*(make_joined(prompt=prompt, output=prompt, final_text=text) for text in (sale, let, sale)))
    assert curated.counts == {"unsupported_fact": 3}
    keys = curated.waiting["support_key"].to_pylist()
    assert (keys[0] == keys[2], keys[0] == keys[1]) == (True, False)
    assert "changed_negation" in curated.refused["evidence"][0].as_py()


_PIECES = [
    "5",
    "12",
    "1,000.50",
    "may",
    "march",
    "http://a.b/c",
    "www.x.org",
    "is",
    "to",
    "x1",
    "2)",
    ".",
    "\n",
    "\u0663",
]
_texts = st.lists(st.sampled_from(_PIECES), max_size=12).map(" ".join)


@given(_texts, _texts, _texts, _texts)
def test_facts_read_around_the_change_are_those_of_the_whole_texts(head: str, one: str, other: str, tail: str) -> None:
    """An address leaves a space: "www.x.org 2)" cut off its line became the number of a list, and no fact."""
    rejected, chosen = f"{head} {one} {tail}", f"{head} {other} {tail}"
    before, after = read_facts(rejected), read_facts(chosen)
    numbers = after.numbers - before.numbers if before.numbers - after.numbers else frozenset()
    found = find_unsupported("", chosen, rejected)
    assert found.get("number", frozenset()) == numbers
    assert found.get("address", frozenset()) == after.hosts - before.hosts
