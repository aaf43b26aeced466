import random
import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.curation.likeness.duplicates import SIMILARITY, Likeness, compute_signatures, find_clusters
from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.curation.texts.resolution import ResolutionRules, resolve
from flywheel_assets.records import JOINED_FEEDBACK
from flywheel_assets_tests.builders import NOON, day, make_joined, table

WORDS = [f"word{number}" for number in range(5_000)]


def jaccard(one: str, other: str) -> float:
    pairs = [set(pairwise(words)) for words in (re.findall(r"\w+", one), re.findall(r"\w+", other))]
    return len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])


def cluster_of(
    texts: list[str],
    group: list[int] | None = None,
    requests: list[str] | None = None,
    anchors: list[str | None] | None = None,
    rank: list[int] | None = None,
) -> list[int]:
    column = pa.array(texts)
    asked = pa.array(requests or [""] * len(texts))
    contents = pa.array(
        [f"{hash(text)} {hash(request)}" for text, request in zip(texts, asked.to_pylist(), strict=True)]
    )
    likeness = Likeness(
        content_hash=contents,
        signature=compute_signatures(column),
        request_hash=pa.array([str(hash(text)) for text in asked.to_pylist()]),
        request_signature=compute_signatures(asked),
        anchors=pa.array(anchors or [None] * len(texts), pa.string()),
    )
    ranks = np.argsort(np.argsort(texts)) if rank is None else np.array(rank)
    return find_clusters(likeness, np.array(group or [0] * len(texts)), ranks).tolist()


def changed(rng: random.Random, text: str, words: int) -> str:
    parts = text.split()
    for place in rng.sample(range(len(parts)), words):
        parts[place] = rng.choice(WORDS)
    return " ".join(parts)


def test_planted_copies_are_found_and_different_texts_are_not_merged() -> None:
    rng = random.Random(1)
    originals = [" ".join(rng.choices(WORDS, k=60)) for _ in range(300)]
    copies = [changed(rng, text, rng.choice([1, 2])) for text in originals]
    others = [changed(rng, text, 15) for text in originals]
    labels = cluster_of([*originals, *copies, *others])
    found = [labels[number] == labels[300 + number] for number in range(300)]
    above = [jaccard(one, two) >= 0.87 for one, two in zip(originals, copies, strict=True)]
    assert sum(above) > 200
    assert sum(np.array(found)[above]) >= 0.99 * sum(above)
    assert max(jaccard(one, two) for one, two in zip(originals, others, strict=True)) < SIMILARITY - 0.1
    assert not any(labels[number] == labels[600 + number] for number in range(300))


@pytest.mark.parametrize(("words_changed", "merged"), [(4, True), (12, False)])
def test_the_threshold_lies_at_four_fifths(words_changed: int, merged: bool) -> None:
    rng = random.Random(words_changed)
    text = " ".join(rng.choices(WORDS, k=100))
    near = changed(rng, text, words_changed)
    assert (jaccard(text, near) > SIMILARITY) is merged
    assert (len(set(cluster_of([text, near]))) == 1) is merged


def test_short_texts_are_duplicates_only_when_they_are_equal() -> None:
    assert compute_signatures(pa.array(["x" * 49, "x" * 50])).is_valid().to_pylist() == [False, True]
    labels = cluster_of(["ab cd ef gh ij kl mn op qr", "ab cd ef gh ij kl mn op qr", "ab cd ef gh ij kl mn op qx"])
    assert labels[0] == labels[1] != labels[2]


def test_groups_are_never_merged_and_slices_do_not_matter() -> None:
    text = " ".join(WORDS[:40])
    assert len(set(cluster_of([text, text], [0, 1]))) == 2
    column = pa.array(["", "something else that is long enough for a signature, surely", text]).slice(2)
    assert compute_signatures(column).to_pylist() == compute_signatures(pa.array([text])).to_pylist()


def test_the_order_of_the_rows_does_not_matter() -> None:
    """A version cut again after a crash had 35 near duplicates instead of 36: days written twice lay in other files."""
    rng = random.Random(7)
    text = " ".join(rng.choices(WORDS, k=60))
    texts = [changed(rng, text, rng.choice([2, 3, 4])) for _ in range(120)]
    found = set()
    for _ in range(5):
        labels = dict(zip(texts, cluster_of(texts), strict=True))
        found.add(frozenset(frozenset(one for one in texts if labels[one] == label) for label in labels.values()))
        rng.shuffle(texts)
    assert len(found) == 1
    assert len(next(iter(found))) > 1


def test_writing_without_spaces_has_words_too() -> None:
    text = "日本語の文章には空白がありませんが、それでも似た文章は見つけられなければなりません。" * 2
    near = text.replace("似た", "近い", 1)
    assert len(set(cluster_of([text, near]))) == 1
    assert len(set(cluster_of([text, "機械翻訳の出力を利用者が編集すると、好みの対になります。" * 3]))) == 2


def test_a_chain_of_small_changes_never_joins_its_ends() -> None:
    """Single linkage made one row of texts that shared no word at all."""
    words, steps = WORDS[:60], []
    for step in range(12):
        words = [*words[: 5 * step], *WORDS[1000 + 5 * step : 1005 + 5 * step], *words[5 * step + 5 :]]
        steps.append(" ".join(words))
    assert all(jaccard(one, other) >= SIMILARITY for one, other in pairwise(steps))
    labels = cluster_of(steps, rank=list(range(12)))
    assert len(set(labels)) >= 5
    assert all(jaccard(steps[number], steps[leader]) > SIMILARITY - 0.1 for number, leader in enumerate(labels))


def test_near_texts_are_one_only_where_requests_are_near_and_anchors_equal() -> None:
    rng = random.Random(3)
    text = " ".join(rng.choices(WORDS, k=80))
    near = changed(rng, text, 2)
    request = " ".join(rng.choices(WORDS, k=40))
    assert len(set(cluster_of([text, near], requests=[request, changed(rng, request, 1)]))) == 1
    assert len(set(cluster_of([text, near], requests=[request, changed(rng, request, 20)]))) == 2
    assert len(set(cluster_of([text, near], requests=["Hours?", "Hours?"]))) == 1
    assert len(set(cluster_of([text, near], requests=["Hours?", "Price?"]))) == 2
    assert len(set(cluster_of([text, near], requests=[request, "Hours?"]))) == 2
    assert len(set(cluster_of([text, near], anchors=["a", "a"]))) == 1
    assert len(set(cluster_of([text, near], anchors=["a", "b"]))) == 2
    assert len(set(cluster_of([text, near], anchors=["a", None]))) == 2


def test_few_with_one_question_find_each_other_among_thousands_with_one_answer() -> None:
    rng = random.Random(5)
    answer = " ".join(rng.choices(WORDS, k=60))
    texts = [changed(rng, answer, 1) for _ in range(600)]
    requests = [f"question {number if number % 200 else 'of all'}" for number in range(600)]
    labels = cluster_of(texts, requests=requests, rank=list(range(600)))
    assert labels[0] == labels[200] == labels[400]
    assert len(set(labels)) == 598


def edit(number: int, subject: str, word: str = "central", **fields: object) -> dict[str, object]:
    shared = (
        f"How do I read the seven settings of the billing service from the {word} store in the nightly job that runs "
        "before the reports of the month are written and sent to the people of the other towns?"
    )
    answer = "Call store.read(names, default=None) once for all of the names, and check each value before the job runs."
    return make_joined(
        prediction_id=f"p{number}",
        prompt=shared,
        user_id=subject,
        output="Call settings.fetch for every one of the names and be done.",
        final_text=answer,
        **fields,
    )


def test_the_newest_trusted_edit_stays_with_everyone_who_supports_it() -> None:
    rows = [
        edit(1, "ann"),
        edit(2, "bob", "shared", feedback_received_at=NOON.replace(hour=20)),
        edit(3, "bob", "common", feedback_received_at=NOON.replace(hour=13)),
        edit(4, "ann", feedback_received_at=NOON.replace(hour=14)),
    ]
    for order in (rows, rows[::-1]):
        curated = curate(table(JOINED_FEEDBACK, order), "assistant", GateRules())
        resolution = resolve(curated.kept, ResolutionRules(holdout_share=0.0))
        assert resolution.train["prediction_id"].to_pylist() == ["p2"]
        assert sum(resolution.dropped.values()) == 3
        assert resolution.train["support_users"].to_pylist() == [2]


def test_across_days_supporters_are_counted_once_each() -> None:
    """One user who repeats a claim on two days is one supporter, not two."""
    days = [
        curate(
            table(JOINED_FEEDBACK, [{**row, "completed_date": day(offset)} for row in rows]), "assistant", GateRules()
        )
        for offset, rows in enumerate(
            [[edit(1, "ann"), edit(2, "bob", "shared")], [edit(3, "ann", "common")], [edit(4, "cy", "old")]]
        )
    ]
    gold = pa.concat_tables([curated.kept for curated in days])
    resolution = resolve(gold, ResolutionRules(holdout_share=0.0))
    assert resolution.train["support_users"].to_pylist() == [3]
    assert resolution.dropped == {"near_duplicate": 3}
    assert resolve(gold.slice(2), ResolutionRules(holdout_share=0.0)).train["support_users"].to_pylist() == [2]
