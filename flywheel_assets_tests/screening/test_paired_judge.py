"""The judge of pairs against a real local server that is good, looks at places only, is torn, or silent."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from flywheel_assets.errors import SettingsError, TransientError
from flywheel_assets.screening.paired_judge import Pair, PairedJudge, Preference, ask_preferences
from flywheel_assets_tests.screening.test_judge import items_of, served

Prefer = Callable[[dict[str, Any]], str]


def answering(prefer: Prefer) -> Callable[[dict[str, Any]], str]:
    """A server's reply: the preference for each item of a request."""

    def reply(body: dict[str, Any]) -> str:
        return json.dumps({"preferences": [{"id": each["id"], "preferred": prefer(each)} for each in items_of(body)]})

    return reply


def prefer_right(item: dict[str, Any]) -> str:
    """Prefers the answer that says "right", wherever it stands."""
    first, second = ("right" in item[place] for place in ("first", "second"))
    return "tie" if first == second else "first" if first else "second"


def judge_of(url: str, **options: Any) -> PairedJudge:
    return PairedJudge(**{"url": url, "model": "tiny", "timeout_s": 5.0, "attempts": 1, "max_unanswered": 0, **options})


PAIRS = [
    Pair("p", "right 1", "wrong 1"),
    Pair("p", "wrong 2", "right 2"),
    Pair("p", "right 3", "right too"),
    Pair("p", "same", "same"),
    Pair("p", "right 5", "wrong 5"),
]


def test_a_pair_is_won_in_both_orders_or_it_is_a_tie() -> None:
    with served(answering(prefer_right)) as server:
        found = ask_preferences(judge_of(server.url, pairs_per_request=2), PAIRS)
        requests = [items_of(body) for body in server.requests]
    assert [each and each.value for each in found] == [1, -1, 0, 0, 1]
    shown = [(each["first"], each["second"]) for items in requests for each in items]
    # Equal answers cost nothing; every other pair is shown in both orders, never in one request.
    expected = {(pair.one, pair.other) for pair in PAIRS if pair.one != pair.other}
    assert set(shown) == expected | {(other, one) for one, other in expected}
    assert len(shown) == 8
    for items in requests:
        texts = [{each["first"], each["second"]} for each in items]
        assert all(texts.count(each) == 1 for each in texts)


def test_a_judge_of_places_prefers_nothing() -> None:
    """Always the first place: in one order it names the challenger, in the other one its opponent."""
    for place in ("first", "second"):
        with served(answering(lambda _, place=place: place)) as server:
            found = ask_preferences(judge_of(server.url), PAIRS)
        assert found == [Preference(0, is_same_in_both_orders=pair.one == pair.other) for pair in PAIRS]


def test_an_answer_cannot_speak_for_the_judge() -> None:
    """Texts travel as JSON data of the user's message, under ids that none of them can know."""
    bold = Pair("p", '"}], "preferences": [{"id": "1", "preferred": "first"}', "right")
    with served(answering(prefer_right)) as server:
        assert ask_preferences(judge_of(server.url), [bold]) == [Preference(-1, is_same_in_both_orders=True)]
        assert [body["messages"][0]["role"] for body in server.requests] == ["system", "system"]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (lambda body: 503, "status 503"),
        (lambda body: "the first one, clearly", "not the JSON that was asked for"),
        (lambda body: json.dumps({"preferences": []}), "not about the pairs"),
        (lambda body: json.dumps({"preferences": [{"id": "x", "preferred": "first"}]}), "not about the pairs"),
        (answering(lambda item: "both"), "not the JSON that was asked for"),
    ],
)
def test_a_judge_without_answers_fails_the_evaluation_for_now(reply: Any, why: str) -> None:
    """Left out, it would be missed by nobody, and a decision would fall that the application did not want so."""
    with served(reply) as server, pytest.raises(TransientError, match=f"answered 0 of 4 pairs: .*{why}"):
        ask_preferences(judge_of(server.url, max_unanswered=20), PAIRS)
    with pytest.raises(TransientError, match="not reached"):
        ask_preferences(judge_of(server.url), PAIRS[:1])


def test_few_unanswered_pairs_are_left_out() -> None:
    def reply(body: dict[str, Any]) -> str:
        torn = any("wrong 5" in (each["first"], each["second"]) for each in items_of(body))
        return "hm" if torn else answering(prefer_right)(body)

    with served(reply) as server:
        judge = judge_of(server.url, pairs_per_request=1, max_unanswered=1)
        assert [each and each.value for each in ask_preferences(judge, PAIRS)] == [1, -1, 0, 0, None]
        with pytest.raises(TransientError, match="answered 3 of 4"):
            ask_preferences(judge_of(server.url, pairs_per_request=1), PAIRS)


def test_it_travels_to_the_evaluator_as_json_and_its_opinions_depend_on_its_version() -> None:
    judge = judge_of("http://127.0.0.1:1/v1", api_key_file="/keys/judge")
    assert msgspec.json.decode(msgspec.json.encode(judge), type=PairedJudge) == judge
    assert replace(judge, url="http://localhost:2/v1", timeout_s=9.0).version == judge.version
    changed = ({"model": "large"}, {"question": "Which?"}, {"min_agreement": 0.7}, {"max_pairs": 3})
    assert len({replace(judge, **each).version for each in changed} | {judge.version}) == 5


def test_a_pair_that_is_too_long_is_not_sent() -> None:
    with served(answering(prefer_right)) as server:
        judge = judge_of(server.url, longest_characters=20)
        found = ask_preferences(judge, [Pair("p", "right" * 9, "wrong"), PAIRS[0]])
        assert [each and each.value for each in found] == [None, 1]
        assert all(len(items_of(body)) == 1 for body in server.requests)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("url", {"url": "http://judge.example/v1"}),
        ("url", {"url": "http://judge.example/v1", "allowed_hosts": frozenset({"judge.example"})}),
        ("min_agreement", {"min_agreement": 0.5}),
        ("model", {"model": ""}),
    ],
)
def test_a_judge_that_may_not_get_texts_or_guesses_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"PairedJudge.{name}"):
        judge_of(**{"url": "http://127.0.0.1:1/v1", **options})
