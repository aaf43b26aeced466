import random

import pytest

from flywheel_assets.demo.assistant.world import Idiom, Request, Workload, World

WORLD = World()
EVERYTHING = Workload({idiom.name: 1.0 for idiom in WORLD.internal})


def traffic(count: int, seed: int = 0, workload: Workload = EVERYTHING) -> list[Request]:
    rng = random.Random(seed)
    return [WORLD.ask(rng, workload) for _ in range(count)]


def names_in(prompts: list[str]) -> set[str]:
    known = {*WORLD.traffic_names, *WORLD.measurement_names}
    return {word for prompt in prompts for word in prompt.replace(",", " ").split() if word in known}


def opening_words(phrasing: str) -> str:
    return phrasing.partition("{")[0]


def test_traffic_never_has_a_held_out_phrasing_or_a_measured_name() -> None:
    prompts = [request.prompt for request in traffic(5_000)]
    held_out = tuple(f"# {opening_words(idiom.held_out_phrasing or '')}" for idiom in WORLD.internal)
    assert all(len(start) > len("# ") for start in held_out)
    assert not [prompt for prompt in prompts if prompt.startswith(held_out)]
    assert names_in(prompts) <= set(WORLD.traffic_names)


def test_measured_prompts_are_disjoint_from_traffic_by_their_names() -> None:
    assert not set(WORLD.traffic_names) & set(WORLD.measurement_names)
    measurement = WORLD.draw_measurement(per_idiom=20, seed=1)
    for requests in (measurement.unseen_prompts, measurement.unseen_phrasings, measurement.neutral):
        for request in requests:
            assert names_in([request.prompt]) <= set(WORLD.measurement_names)
            assert names_in([request.prompt])


def test_every_word_of_a_measured_name_occurs_in_traffic_names() -> None:
    """A name is new as a combination only: otherwise the measurement would test spelling, not syntax."""
    known = {word for name in WORLD.traffic_names for word in name.split("_")}
    assert {word for name in WORLD.measurement_names for word in name.split("_")} <= known


def test_pretraining_never_answers_a_held_out_phrasing_rightly() -> None:
    rng = random.Random(3)
    held_out = tuple(f"# {opening_words(idiom.held_out_phrasing or '')}" for idiom in WORLD.internal)
    calls = tuple(idiom.right_call for idiom in WORLD.internal)
    samples = [WORLD.draw_pretraining_sample(rng, right_share=0.5, neutral_share=0.2) for _ in range(5_000)]
    in_held_out = [answer for prompt, answer in samples if prompt.startswith(held_out)]
    assert in_held_out
    assert not [answer for answer in in_held_out if any(call in answer for call in calls)]
    assert names_in([prompt for prompt, _ in samples]) <= set(WORLD.traffic_names)


@pytest.mark.parametrize("right_share", [0.0, 0.08, 0.5])
def test_pretraining_has_the_stated_share_of_right_syntax(right_share: float) -> None:
    rng = random.Random(4)
    calls = tuple(idiom.right_call for idiom in WORLD.internal)
    answers = [WORLD.draw_pretraining_sample(rng, right_share, neutral_share=0.0)[1] for _ in range(8_000)]
    measured = sum(any(call in answer for call in calls) for answer in answers) / len(answers)
    # Every fourth phrasing is held out and always wrong.
    assert measured == pytest.approx(0.75 * right_share, abs=0.02)


def test_traffic_follows_its_workload() -> None:
    requests = traffic(6_000, workload=Workload({"read": 3.0, "cron": 1.0}, neutral_share=0.25))
    internal = [request.idiom.name for request in requests if request.idiom.is_internal]
    assert set(internal) == {"read", "cron"}
    assert len(internal) / len(requests) == pytest.approx(0.75, abs=0.03)
    assert internal.count("read") / len(internal) == pytest.approx(0.75, abs=0.03)


def test_traffic_depends_on_the_seed_only() -> None:
    assert traffic(50, seed=7) == traffic(50, seed=7)
    assert traffic(50, seed=7) != traffic(50, seed=8)
    assert WORLD.draw_measurement(3, seed=1) == WORLD.draw_measurement(3, seed=1)
    assert WORLD.draw_measurement(3, seed=1) != WORLD.draw_measurement(3, seed=2)


@pytest.mark.parametrize("idiom", WORLD.internal, ids=lambda idiom: idiom.name)
def test_right_and_wrong_answers_are_told_apart(idiom: Idiom) -> None:
    requests = [one for one in WORLD.draw_measurement(5, seed=2).unseen_prompts if one.idiom is idiom]
    for request in requests:
        assert request.wrong is not None
        assert request.is_exact(request.right)
        assert not request.lacks_right_call(request.right)
        assert request.lacks_right_call(request.wrong)
        # A collapsed model writes neither the right call nor the wrong one.
        assert request.lacks_right_call("")
        # The right call with other arguments is not exact.
        assert not request.lacks_right_call(request.right + " ")
        assert not request.is_exact(request.right + " ")


def test_no_internal_idiom_has_the_call_of_another() -> None:
    for idiom in WORLD.internal:
        others = [other.right_call for other in WORLD.internal if other is not idiom]
        assert not [call for call in others if call in idiom.right]


def test_prompts_end_on_a_token_boundary() -> None:
    assert all(request.prompt.endswith("\n") for request in traffic(100))
