"""What words, numbers and names of scores mean, the same for every format."""

from typing import Any

import pytest

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.statements import rate, read_verdict, score
from flywheel_assets.records import Signal


@pytest.mark.parametrize(
    ("given", "is_good"),
    [
        ("Upvote", True), ("desirable", True), ("thumbs up", True), ("thumbs-up", True), ("+1", True), ("1.0", True),
        (1, True), (True, True),
        ("not helpful", False), ("undesirable", False), ("-1", False), ("-1.0", False), ("0", False), (0, False),
        (False, False), (-1.0, False),
        ("perhaps", None), (0.5, None), ("0.5", None), (2, None), (None, None), ([1], None), (float("nan"), None),
    ],
)  # fmt: skip
def test_a_word_of_judgement_means_the_same_to_logs_and_to_data_sets(given: Any, is_good: bool | None) -> None:
    """Two lists of words once differed: "upvote" was a thumb in a trace and nothing by --map."""
    assert read_verdict(given) is is_good
    if is_good is not None:
        said = score("test", "1", "a", "user", given)
        assert said is not None
        assert (said.data.signal, said.data.value) == (Signal.THUMB, 1.0 if is_good else -1.0)


def test_a_number_off_its_scale_says_how_to_give_another() -> None:
    assert rate(3, 1, 5, "stars") == 0.5
    with pytest.raises(InvalidEventError, match="`stars` is 7; valid: 1 to 5; say another scale with --map rating="):
        rate(7, 1, 5, "stars")
