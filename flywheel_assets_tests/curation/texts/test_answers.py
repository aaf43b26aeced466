"""Texts that are no answers: one text on many requests, and another language."""

import pytest

from flywheel_assets.curation.texts.answers import detect_language, find_asked_language, mark_canned_texts

OUTPUTS = ["Rows are read once.", "Take the bus downtown", "Milk, flour, eggs", "def f(): pass", "It rained all night"]


@pytest.mark.parametrize(
    ("requests", "outputs", "chosen", "canned"),
    [
        (list("abcde"), OUTPUTS, "We cannot help with that.", True),
        (list("abcde"), OUTPUTS, "we  cannot help with that.", True),
        (list("abcdd"), OUTPUTS, "We cannot help with that.", False),
        (
            list("abcde"),
            [f"Call fetch({number}) and check it." for number in range(5)],
            "Use read() instead of it.",
            False,
        ),
        (list("abcde"), OUTPUTS, "positive", False),
    ],
)
def test_one_text_for_five_requests_and_unrelated_outputs_is_canned(
    requests: list[str], outputs: list[str], chosen: str, canned: bool
) -> None:
    texts = ["We cannot help with that." if canned else chosen, *[chosen] * 4]
    assert mark_canned_texts([*requests, "other"], [*outputs, "x"], [*texts, "Something else here"]).tolist() == [
        *[canned] * 5,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The plant is going to close in the spring.", "english"),
        ("Das Werk wird im Frühjahr für immer geschlossen und ist nicht das letzte.", "german"),
        ("Завод закроют весной", None),
        ("गाउँमा घर छन्", "hindi"),
        ("今日はとても良い天気です", "japanese"),
        ("ok", None),
        ("x = 1; y = 2; print(x + y)", None),
        ("", None),
    ],
)
def test_a_language_is_named_only_when_it_is_sure(text: str, language: str | None) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(
    ("request_", "language"),
    [
        ("Translate into French: hello", "french"),
        ("Write it in German, please", "german"),
        ("Translate from English to Spanish", "spanish"),
        ("Compare it in English and in French", None),
        ("Hello", None),
    ],
)
def test_the_language_that_a_request_asks_for(request_: str, language: str | None) -> None:
    assert find_asked_language(request_) == language
