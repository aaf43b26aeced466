import pytest

from flywheel_assets.demo.assistant.report import measure
from flywheel_assets.demo.assistant.world import World
from flywheel_assets_tests.demo.assistant.scripted import Scripted

MEASUREMENT = World().draw_measurement(per_idiom=4, seed=0)
ALL = (*MEASUREMENT.unseen_prompts, *MEASUREMENT.unseen_phrasings, *MEASUREMENT.neutral)
RIGHT = {request.prompt: request.right for request in ALL}
WRONG = {request.prompt: request.wrong or request.right for request in ALL}


def test_each_share_is_of_its_own_requests() -> None:
    phrasings = {request.prompt for request in MEASUREMENT.unseen_phrasings}
    accuracy = measure(Scripted(says=lambda prompt: (RIGHT if prompt in phrasings else WRONG)[prompt]), MEASUREMENT)
    assert accuracy.unseen_phrasings_exact == 1.0
    assert accuracy.unseen_prompts_exact == 0.0
    assert accuracy.lacking_right_call == 1.0
    assert accuracy.neutral_exact == 1.0
    assert accuracy.model_version == "scripted"
    assert accuracy.requests == len(ALL)


@pytest.mark.parametrize("answer", ["", "pass"])
def test_a_collapsed_model_lacks_the_right_call_everywhere(answer: str) -> None:
    accuracy = measure(Scripted(says=lambda _: answer), MEASUREMENT)
    assert accuracy.lacking_right_call == 1.0
    assert accuracy.neutral_exact == 0.0


def test_the_right_call_with_other_arguments_is_not_exact() -> None:
    accuracy = measure(Scripted(says=lambda prompt: RIGHT[prompt] + "  # why not"), MEASUREMENT)
    assert accuracy.lacking_right_call == 0.0
    assert accuracy.unseen_prompts_exact == accuracy.unseen_phrasings_exact == accuracy.neutral_exact == 0.0
