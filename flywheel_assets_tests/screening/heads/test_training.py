"""Heads learn, are measured on what they had not seen, and replace only what they beat."""

import msgspec
import numpy as np
import pytest

from flywheel_assets.errors import TrainingError
from flywheel_assets.screening.heads.functional_suite import PARTS, write_suite
from flywheel_assets.screening.heads.gate import HeadLimits, judge_head
from flywheel_assets.screening.heads.head import Head, read_pieces, split_text
from flywheel_assets.screening.heads.signals import list_word_hits
from flywheel_assets.screening.heads.training import Example, Measured, TrainingRules, find_stopped, train_head
from flywheel_assets_tests.screening.heads.word_vectors import encode_words

# The stand-in knows no meaning: the suite could only raise the threshold over everything.
RULES = TrainingRules(folds=2, most_harmless_suite=0.3)
HARMFUL = [f"your {thing} number {n} is zorp" for n in range(100) for thing in ("hat", "dog")]
HARMLESS = [f"your {thing} number {n} is blue" for n in range(100) for thing in ("hat", "dog")]
GERMAN = [f"das ist nicht gut und die Katze {n} ist zorp" for n in range(60)]


@pytest.fixture(scope="module")
def measured() -> Measured:
    examples = [*(Example(text, True, "en") for text in HARMFUL), *(Example(text, False, "en") for text in HARMLESS)]
    return train_head([*examples, Example(GERMAN[0], True)], encode_words, "words", RULES)


def test_a_head_finds_what_people_judged_and_no_list_knows(measured: Measured) -> None:
    texts = ["your hat number 99 is zorp", "your hat number 99 is blue"]
    assert find_stopped(measured.head, texts, ("en", "en"), encode_words).tolist() == [True, False]
    assert not list_word_hits(texts).any()


def test_a_head_is_the_same_for_the_same_texts_and_after_it_was_written(measured: Measured) -> None:
    again = msgspec.json.decode(msgspec.json.encode(measured.head), type=Head)
    assert again.version == measured.head.version
    pieces = read_pieces(HARMFUL[:5], encode_words)
    assert (again.compute_probabilities(pieces) == measured.head.compute_probabilities(pieces)).all()


def test_a_language_with_few_examples_is_not_evaluated(measured: Measured) -> None:
    assert measured.languages[-1] == "de"
    assert set(measured.head.thresholds) == {"en"}
    assert not find_stopped(measured.head, GERMAN, ("de",) * len(GERMAN), encode_words).any()


def test_a_language_with_enough_examples_gets_a_threshold_of_its_own() -> None:
    harmless = [text.replace("zorp", "lieb") for text in GERMAN]
    examples = [*(Example(text, True) for text in GERMAN), *(Example(text, False) for text in harmless)]
    found = train_head(examples, encode_words, "words", RULES)
    assert set(found.head.thresholds) == {"de", "en"}
    assert found.stopped[:60].mean() > 0.9
    assert found.stopped[60:].mean() <= 0.02


def test_the_thresholds_leave_the_suites_harmless_texts_alone(measured: Measured) -> None:
    harmless = np.array([not case.is_harmful for case in measured.suite])
    # Set on another part, so that chance moves the share a little.
    assert measured.suite_stopped[harmless].mean() <= RULES.most_harmless_suite + 0.05


def test_harm_on_the_last_page_is_found_and_length_alone_is_no_harm(measured: Measured) -> None:
    page = "your hat number 5 is blue. " * 60
    assert len(split_text(page)) > 4
    assert find_stopped(
        measured.head, [page, page + "Your hat is zorp, zorp, zorp! " * 20], ("en", "en"), encode_words
    ).tolist() == [
        False,
        True,
    ]


def test_examples_of_one_kind_only_are_refused() -> None:
    with pytest.raises(TrainingError, match="all 200 examples are harmful"):
        train_head([Example(text, True) for text in HARMFUL], encode_words, "words", RULES)


def test_a_better_head_is_promoted_and_says_why(measured: Measured) -> None:
    nothing = np.zeros(len(measured.examples), dtype=bool)
    limits = HeadLimits(max_harmless_suite=0.35, max_false_positive_increase=0.02)
    report = judge_head(measured, "word list", nothing, np.zeros(len(measured.suite), dtype=bool), limits)
    assert report.promote, report.sentence
    assert report.sentence.startswith("Promoted: recall changes by +")
    (english,) = report.figures
    assert (english.language, english.harmful, english.harmless) == ("en", 200, 200)


def test_a_head_that_finds_no_more_is_refused(measured: Measured) -> None:
    same = measured.stopped.copy()
    report = judge_head(measured, "70a8", same, measured.suite_stopped, HeadLimits())
    assert not report.promote
    assert "the lower bound must exceed" in report.sentence


def test_a_head_that_stops_more_harmless_texts_is_refused(measured: Measured) -> None:
    stopped = measured.stopped | np.array([each.text.startswith("your dog") for each in measured.examples])
    worse = Measured(
        measured.head, measured.examples, measured.languages, stopped, measured.suite, measured.suite_stopped
    )
    nothing = np.zeros(len(stopped), dtype=bool)
    report = judge_head(worse, "word list", nothing, measured.suite_stopped, HeadLimits())
    assert not report.promote
    assert "of harmless texts in en are stopped" in report.sentence


def test_the_suite_alone_is_no_evidence() -> None:
    """It was written by the authors of the head: a first head without any judged text must not serve by itself."""
    found = train_head([], encode_words, "words", RULES)
    nothing = np.zeros(0, dtype=bool)
    report = judge_head(found, "word list", nothing, np.zeros(len(found.suite), dtype=bool), HeadLimits())
    assert not report.promote
    assert report.sentence.startswith("Not promoted, not enough evidence: 0 texts")


def test_the_suites_parts_share_no_text_and_each_has_every_functionality() -> None:
    parts = [write_suite(part) for part in range(len(PARTS))]
    texts = [{case.text for case in part} for part in parts]
    assert len(set().union(*texts)) == sum(map(len, texts))
    names = [{case.functionality for case in part} for part in parts]
    assert names[0] == names[1] == names[2]
    assert parts[0] == write_suite(0)
    assert not [case.text for part in parts for case in part if "{" in case.text]


def test_the_suites_figures_come_from_a_part_that_decided_nothing(measured: Measured) -> None:
    """The threshold was set on the half that the figures came from: 7 % of it could not be exceeded by construction."""
    assert list(measured.suite) == write_suite(PARTS.index("test"))
