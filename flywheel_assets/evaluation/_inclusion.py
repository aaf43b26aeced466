"""Chooses which held-out rows are scored where there are more than are wanted.

The sample is a systematic one of rows in the order stratum, person, kind, day, hash (Cochran 1977, "Sampling
Techniques", chapter 8): every person's share is kept to one row, each person's days and kinds are spread, and days are
kept in proportion over all persons in expectation. It is decided by hashes of ids, so the same rows give the same one.

A person has at least one row of each stratum in which there were any, so that as many people judge as before. Of one
person and stratum every row is in with the same probability: a mean over persons estimates what all rows would give.
Where there are more persons than rows wanted, one row of each is kept all the same.
"""

from collections import defaultdict
from collections.abc import Sequence
from math import floor

from flywheel_assets.evaluation.requests import Inclusion, Stratum
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.records import make_stable_id

_Row = tuple[Stratum, ExportedRow]
_HASHES = 16**12


def choose_rows(rows: Sequence[_Row], most: int | None) -> dict[int, float]:
    """Choose rows to score; return their places, in order, with the probability that each was in.

    Args:
        rows: with their stratum; a (stratum, subject) is one judge.
        most: rows wanted at most; None: all.
    """
    if most is None or len(rows) <= most:
        return dict.fromkeys(range(len(rows)), 1.0)
    judges: dict[tuple[Stratum, str], list[int]] = defaultdict(list)
    for place, (stratum, row) in enumerate(rows):
        judges[stratum, row.subject].append(place)
    # A judge's place among the others must not follow from the name: people of one team have similar ones.
    ordered = sorted(judges, key=lambda judge: (judge[0].value, make_stable_id("judge", *judge)))
    kept = _share_out([len(judges[judge]) for judge in ordered], most)
    chosen: dict[int, float] = {}
    for judge, count in zip(ordered, kept, strict=True):
        places = sorted(judges[judge], key=lambda place: _rank(rows[place][1]))
        start = int(make_stable_id("start", *judge)[:12], 16) / _HASHES
        for number in range(count):
            chosen[places[int((number + start) * len(places) / count)]] = count / len(places)
    return dict(sorted(chosen.items()))


def describe_inclusion(rows: Sequence[_Row], chosen: dict[int, float]) -> dict[Stratum, Inclusion]:
    """Describe by stratum how much of it is scored."""
    found: dict[Stratum, Inclusion] = {}
    for stratum in Stratum:
        places = [place for place, (each, _) in enumerate(rows) if each is stratum]
        scored = [place for place in places if place in chosen]
        if places:
            found[stratum] = Inclusion(
                rows=len(scored),
                of_rows=len(places),
                subjects=len({rows[place][1].subject for place in scored}),
                days=len({rows[place][1].completed_date for place in scored}),
                of_days=len({rows[place][1].completed_date for place in places}),
                least_probability=min(chosen[place] for place in scored),
            )
    return found


def _rank(row: ExportedRow) -> tuple[str, str, str]:
    return row.example_kind, row.completed_date, make_stable_id("included", row.pair_id)


def _share_out(sizes: Sequence[int], most: int) -> list[int]:
    """Share out `most` rows over judges in proportion to their rows, at least one each."""
    wanted = [1.0] * len(sizes)
    growing = set(range(len(sizes)))
    while growing:
        room = most - (len(sizes) - len(growing))
        total = sum(sizes[each] for each in growing)
        share = max(0.0, room / total)
        below = {each for each in growing if share * sizes[each] < 1}
        if not below:
            for each in growing:
                wanted[each] = share * sizes[each]
            break
        growing -= below
    # Rounded along the order, so that rounding adds up to nothing over neighbours.
    counts: list[int] = []
    passed = 0.0
    for size, more in zip(sizes, wanted, strict=True):
        before, passed = passed, passed + more
        counts.append(min(size, max(1, floor(passed + 0.5) - floor(before + 0.5))))
    return counts
