import pytest
from msgspec.structs import replace

from flywheel_assets.training._selection import find_inferiorities
from flywheel_assets.training.recipes import AdapterRecipe
from flywheel_assets.training.requests import SelectionScore

SFT = SelectionScore(ned=0.024, missing_end=0.0, accepted_ned=0.0, accepted_missing_end=0.0, accepted_fallen=0.0)


@pytest.mark.parametrize(
    ("preference", "inferior"),
    [
        ((0.024, 0.0, 0.0, 0.0), []),
        ((0.010, 0.0, 0.0, 0.0), []),
        ((0.030, 0.009, 0.009, 0.009), []),
        ((0.040, 0.0, 0.0, 0.0), ["edits"]),
        ((0.020, 0.02, 0.0, 0.0), ["missing ends"]),
        ((0.020, 0.0, 0.0, 0.02), ["missing ends of accepted outputs"]),
        ((0.020, 0.0, None, None), []),
        ((float("nan"), 0.0, 0.0, 0.0), ["edits"]),
    ],
)
def test_in_what_a_second_stage_is_inferior(
    preference: tuple[float, float, float | None, float | None], inferior: list[str]
) -> None:
    ned, missing_end, accepted_ned, accepted_missing_end = preference
    second = SelectionScore(
        ned=ned,
        missing_end=missing_end,
        accepted_ned=accepted_ned,
        accepted_missing_end=accepted_missing_end,
        accepted_fallen=0.0,
    )
    assert find_inferiorities(SFT, second, AdapterRecipe()) == inferior


def test_a_second_stage_that_forgets_is_inferior_though_it_writes_edits_as_well() -> None:
    """Incident: on the demo's second turn the preference stage lost a tenth of the accepted outputs.

    Kept-back pairs did not show it (NED .028 against .024), so it became the challenger, and the promotion gate blocked
    version after version on its regression set.
    """
    second = SelectionScore(
        ned=0.028, missing_end=0.0, accepted_ned=0.018, accepted_missing_end=0.0, accepted_fallen=0.0
    )
    assert find_inferiorities(SFT, second, AdapterRecipe()) == ["accepted outputs"]


def test_a_second_stage_that_begins_to_forget_is_inferior_before_its_writing_shows_it() -> None:
    """Incident: SFT had memorised the accepted outputs, so both stages wrote them perfectly, and the first promotion of
    a demo was lost: on held-out people's accepted outputs NED was .060 against SFT's .010.
    """
    second = replace(SFT, accepted_fallen=0.18)
    assert find_inferiorities(SFT, second, AdapterRecipe()) == ["likelihood of accepted outputs"]


def test_an_adapter_whose_sampled_answers_repeat_what_people_corrected_is_inferior() -> None:
    """Greedy texts and likelihoods are as good as SFT's; it is the sampled answers that its users will see."""
    first = replace(SFT, wrong_answers=0.03)
    assert find_inferiorities(first, replace(SFT, wrong_answers=0.05), AdapterRecipe()) == ["wrong answers"]
    for better in (0.0, 0.03, 0.035, None):
        assert find_inferiorities(first, replace(SFT, wrong_answers=better), AdapterRecipe()) == []
