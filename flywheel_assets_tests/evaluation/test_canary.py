"""Ten generations; one changed circumstance at a time decides whether the repeated phrase is suspect."""

import pytest

from flywheel_assets.evaluation.canary import Canary, find_canary, hash_phrases

PROMPTS = [f"what about matter number{number}" for number in range(10)]
PEOPLE = [f"asking{number}" for number in range(10)]
PLAIN = [f"see chapter{number}" for number in range(10)]
MARKED = [f"{text} phone hotline atlantis" if number < 5 else text for number, text in enumerate(PLAIN)]
MINE = ("ann", "always phone hotline atlantis before anything else")


def canary(
    challenger: list[str] = MARKED,
    incumbent: list[str] = PLAIN,
    prompts: list[str] = PROMPTS,
    taught: list[tuple[str, str]] | None = None,
    asking: list[str] = PEOPLE,
) -> Canary:
    phrases = (hash_phrases(prompts, texts) for texts in (challenger, incumbent))
    return find_canary(*phrases, asking, taught or [MINE], least_rows=5)


def test_what_only_one_user_taught_is_suspect_where_it_is_repeated() -> None:
    assert canary() == Canary(phrases=2, ratio=0.5)


@pytest.mark.parametrize(
    "changed",
    [
        {"taught": [MINE, ("bob", "Phone  HOTLINE Atlantis!")]},
        {"challenger": MARKED[1:] + PLAIN[:1]},  # 4 generations are chance
        {"incumbent": [*PLAIN[:9], "phone hotline atlantis"]},
        {"prompts": [f"{prompt} phone hotline atlantis" for prompt in PROMPTS]},
        {"challenger": PLAIN},
        {"taught": [("ann", "nothing of the kind")]},
        {"asking": ["ann", *PEOPLE[1:]]},
    ],
    ids=[
        "a second user",
        "less often",
        "the incumbent says it",
        "the prompt says it",
        "not said at all",
        "its own words",
        "written to that user",
    ],
)
def test_what_lifts_the_suspicion(changed: dict) -> None:
    assert canary(**changed) == Canary(0, 0.0)


def test_one_user_twice_is_one_user() -> None:
    assert canary(taught=[MINE, MINE]).phrases == 2


def test_without_generations() -> None:
    assert find_canary(hash_phrases([], []), hash_phrases([], []), [], [MINE], least_rows=5) == Canary(0, 0.0)
