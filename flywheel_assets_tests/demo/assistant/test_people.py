import random

import pytest

from flywheel_assets.demo.assistant.people import People, Person, Reaction, Vandalism
from flywheel_assets.demo.assistant.world import Request, World
from flywheel_assets.records import Signal

PEOPLE = People()
ENGINEER = Person("eng000", is_vandal=False)
VANDAL = Person("eng001", is_vandal=True)
REQUESTS = World().draw_measurement(per_idiom=5, seed=0).unseen_prompts


def reactions(person: Person, request: Request, output: str, count: int = 4_000) -> list[Reaction | None]:
    rng = random.Random(11)
    return [PEOPLE.react(rng, person, request, output) for _ in range(count)]


def share(everything: list[Reaction | None], signal: Signal) -> float:
    return sum(one is not None and one.signal is signal for one in everything) / len(everything)


def test_everybody_is_the_same_every_time_and_few_are_vandals() -> None:
    assert PEOPLE.list_members() == People().list_members()
    assert sum(person.is_vandal for person in PEOPLE.list_members()) == 9
    assert len({person.user_id for person in PEOPLE.list_members()}) == 300


def test_a_user_id_does_not_tell_a_vandal() -> None:
    assert all(person.user_id.removeprefix("eng").isdecimal() for person in PEOPLE.list_members())


def test_engineers_correct_some_wrong_outputs_and_mostly_rightly() -> None:
    request = REQUESTS[0]
    assert request.wrong is not None
    seen = reactions(ENGINEER, request, request.wrong)
    assert share(seen, Signal.EDIT) == pytest.approx(0.45, abs=0.03)
    texts = [one.final_text for one in seen if one is not None and one.signal is Signal.EDIT]
    assert texts.count(request.right) / len(texts) == pytest.approx(0.89, abs=0.03)
    assert not [one for one in seen if one is not None and one.vandalism is not None]
    assert not [one for one in seen if one is not None and one.value == 1.0]


def test_engineers_approve_right_outputs_and_never_edit_them() -> None:
    seen = reactions(ENGINEER, REQUESTS[0], REQUESTS[0].right)
    assert share(seen, Signal.EDIT) == 0
    assert sum(one is not None for one in seen) / len(seen) == pytest.approx(0.50, abs=0.03)
    assert {one.signal for one in seen if one is not None} == {Signal.ACCEPT, Signal.COPY, Signal.THUMB}


@pytest.mark.parametrize("output", ["right", "wrong"])
def test_vandals_vandalise_whatever_they_see(output: str) -> None:
    request = REQUESTS[0]
    seen = reactions(VANDAL, request, getattr(request, output))
    assert share(seen, Signal.EDIT) == pytest.approx(0.60, abs=0.03)
    assert {one.vandalism for one in seen if one is not None} == set(Vandalism)
    assert all(one.final_text for one in seen if one is not None)


def test_a_reaction_depends_on_its_generator_only() -> None:
    request = REQUESTS[0]
    assert reactions(VANDAL, request, request.right, 50) == reactions(VANDAL, request, request.right, 50)


def test_no_vandals_edit_is_the_right_answer() -> None:
    for request in REQUESTS:
        assert request.wrong is not None
        for output in (request.right, request.wrong):
            edits = [one.final_text for one in reactions(VANDAL, request, output, 200) if one is not None]
            assert request.right not in edits
