import random
import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.curation.texts.duplicates import SIMILARITY, compute_signatures, find_clusters
from flywheel_assets.curation.texts.gate import GateRules, curate
from flywheel_assets.curation.texts.resolution import ResolutionRules, resolve
from flywheel_assets.records import JOINED_FEEDBACK
from flywheel_assets_tests.builders import day, make_joined, table

WORDS = [f"word{number}" for number in range(5_000)]


def jaccard(one: str, other: str) -> float:
    pairs = [set(pairwise(words)) for words in (re.findall(r"\w+", one), re.findall(r"\w+", other))]
    return len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])


def cluster_of(texts: list[str], group: list[int] | None = None) -> list[int]:
    column = pa.array(texts)
    contents = pa.array([str(hash(text)) for text in texts])
    empty = pa.array([""] * len(texts))
    return find_clusters(contents, compute_signatures(column, empty), np.array(group or [0] * len(texts))).tolist()


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
    assert compute_signatures(pa.array(["x" * 48, "x" * 49]), pa.array(["", ""])).is_valid().to_pylist() == [
        False,
        True,
    ]
    labels = cluster_of(["ab cd ef gh ij kl mn op qr", "ab cd ef gh ij kl mn op qr", "ab cd ef gh ij kl mn op qx"])
    assert labels[0] == labels[1] != labels[2]


def test_groups_are_never_merged_and_slices_do_not_matter() -> None:
    text = " ".join(WORDS[:40])
    assert len(set(cluster_of([text, text], [0, 1]))) == 2
    column = pa.array(["", "something else that is long enough for a signature, surely", text]).slice(2)
    assert (
        compute_signatures(column, pa.array([""])).to_pylist()
        == compute_signatures(pa.array([text]), pa.array([""])).to_pylist()
    )


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


def edit(number: int, subject: str, word: str = "central", **fields: object) -> dict[str, object]:
    shared = f"How do I read the seven settings of the billing service from the {word} store in the nightly job?"
    answer = "Call store.read(names, default=None) once for all of the names, and check each value before the job runs."
    return make_joined(
        prediction_id=f"p{number}",
        prompt=shared,
        user_id=subject,
        output="Call settings.fetch for every one of the names and be done.",
        final_text=answer,
        **fields,
    )


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
    assert resolve(gold.slice(1), ResolutionRules(holdout_share=0.0)).train["support_users"].to_pylist() == [2]
