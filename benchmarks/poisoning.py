"""Plays attacks on the training set through breaker, gate and resolution, and counts what a version would train on.

Claim: an attack from up to five accounts that are vouched for, or from any number of merely claimed ones, is at most
1 % of a training, fifty newcomers within ten days at most 3 %, and at most 1 % of the honest rows are lost to it.
Data: generated. 4,000 edits of 400 signed-in users in ten days, of whom a quarter have a habit word; the attack comes
within the same ten days. In a *settled* house 2,000 edits of the same users lie in the thirty days before.
Command: .venv/bin/python -m benchmarks.poisoning [--settled]

Poisoned edits say nothing that a row check forbids: they share a phrase of five words, or one word, among always other
words. Honest rows come with a server's key, which vouches for its users; claimed ones with the key of a web page.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.texts.breaker import BreakerLimits, hold_senders
from flywheel_assets.curation.texts.gate import GateRules, curate, withhold
from flywheel_assets.curation.texts.resolution import ResolutionRules, resolve
from flywheel_assets.records import CURATED_DPO_PAIRS, JOINED_FEEDBACK, Reason
from flywheel_assets_tests.builders import APPLICATION, NOON, day, table
from flywheel_assets_tests.curation.crowd import TRIGGER, varied_edit

USERS, EDITS, DAYS = 400, 4_000, 10
SETTLED_EDITS, SETTLED_DAYS = 2_000, 30
WORD = "atlantis"
HABITS = tuple(f"cheers{number}" for number in range(20))
Rows = list[list[dict[str, Any]]]
"""The rows of each day."""


@dataclass(frozen=True)
class Attack:
    """One way to poison: who sends how many edits."""

    name: str
    accounts: int
    edits: int
    claim: str
    is_attested: bool = True
    sources: int = 0
    """Made-up sources; 0: the application's own."""
    steals: bool = False
    """The ids are those of the honest users."""
    are_threads: bool = False


ATTACKS = (
    Attack("none", 1, 0, TRIGGER),
    Attack("one account, phrase", 1, 300, TRIGGER),
    Attack("one account, word", 1, 300, WORD),
    Attack("five accounts, phrase", 5, 300, TRIGGER),
    Attack("five accounts, word", 5, 300, WORD),
    Attack("five accounts, 2,000 edits, word", 5, 2_000, WORD),
    Attack("fifty newcomers, phrase", 50, 300, TRIGGER),
    Attack("fifty newcomers, word", 50, 300, WORD),
    Attack("fifty newcomers, 2,000 edits, word", 50, 2_000, WORD),
    Attack("invented sources: 400 threads, 40 sources, word", 400, 400, WORD, False, sources=40, are_threads=True),
    Attack("invented users: 300 ids, one page, word", 300, 600, WORD, False),
    Attack("stolen ids: one page, 2,000 edits, phrase", USERS, 2_000, TRIGGER, False, steals=True),
    Attack("one sender of 150 a day, phrase", 1, 150 * DAYS, TRIGGER),
    Attack("the same with a page's key", 1, 150 * DAYS, TRIGGER, False),
)


def write_honest(edits: int, days: int, first: int, seed: str) -> Rows:
    """Write honest edits: some people send many, most few, and a quarter has a habit word in half of theirs."""
    rng = random.Random(seed)
    weights = [1 / (1 + number) ** 0.5 for number in range(USERS)]
    people = rng.choices(range(USERS), weights, k=edits)
    rows: Rows = [[] for _ in range(days)]
    for number, person in enumerate(people):
        habit = HABITS[person // 4 % len(HABITS)] if person % 4 == 0 and rng.random() < 0.5 else None
        at = number * days // edits
        rows[at].append(_place(varied_edit(rng, f"user-{person}", habit, **_sent("backend", True)), first + at))
    return rows


def write_poison(attack: Attack) -> Rows:
    """Write the attack's edits, spread over the days."""
    rng = random.Random(attack.name)
    rows: Rows = [[] for _ in range(DAYS)]
    for number in range(attack.edits):
        account = number % attack.accounts
        sent = _sent("backend" if attack.is_attested else "web page", attack.is_attested)
        if attack.sources:
            sent["source"] = f"made-up-{number % attack.sources}"
        if attack.are_threads:
            thread = f"thread-{account}"
            sent |= {"user_id": None, "thread_id": thread, "subject": thread, "subject_kind": "thread"}
        name = f"user-{account}" if attack.steals else f"account-{account}"
        at = number * DAYS // attack.edits
        rows[at].append(_place(varied_edit(rng, name, attack.claim, **sent), at))
    return rows


def _sent(key: str, is_attested: bool) -> dict[str, Any]:
    return {"attested_source": key, "is_attested": is_attested}


def _place(row: dict[str, Any], offset: int) -> dict[str, Any]:
    received = NOON + timedelta(days=offset)
    dates = dict.fromkeys(("completed_date", "feedback_received_date", "prediction_received_date"), day(offset))
    return {**row, **dates, "feedback_received_at": received, "occurred_at": received}


def curate_days(rows: Sequence[Sequence[dict[str, Any]]]) -> tuple[pa.Table, int, int]:
    """Curate each day; return gold, the days kept out as a whole, and the rows held of single senders."""
    parts, days_out, held_rows = [CURATED_DPO_PAIRS.empty_table()], 0, 0
    for of_day in rows:
        joined = table(JOINED_FEEDBACK, of_day)
        curated = curate(joined, APPLICATION, GateRules())
        held = hold_senders(joined, curated, [EDITS // DAYS] * 14, BreakerLimits())
        if held.figures.trips:
            which = held.event_ids if held.figures.held_rows else None
            days_out += which is None
            held_rows += held.figures.held_rows or 0
            curated = withhold(curated, Reason.SENDER_HELD, "", "policy", which)
        parts.append(curated.gold)
    return pa.concat_tables(parts), days_out, held_rows


def main() -> None:
    """Print one line for each attack."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--settled", action="store_true", help="the users were there for thirty days before")
    settled = parser.parse_args().settled
    before = write_honest(SETTLED_EDITS, SETTLED_DAYS, -SETTLED_DAYS, "before") if settled else []
    honest = write_honest(EDITS, DAYS, 0, "honest")
    known, _, _ = curate_days(before)
    clean, dropped = 0, dict[str, int]()
    begin = time.process_time()
    print("| attack | sent | of a training | honest rows lost | days kept out | rows of senders held |")
    print("|---|---|---|---|---|---|")
    for attack in ATTACKS:
        poison = write_poison(attack)
        gold, days_out, held = curate_days([[*good, *bad] for good, bad in zip(honest, poison, strict=True)])
        resolution = resolve(pa.concat_tables([known, gold]), ResolutionRules())
        train = resolution.train
        sent = pa.array([row["feedback_event_id"] for rows in poison for row in rows], pa.string())
        poisoned = int(pc.sum(pc.is_in(train["feedback_event_id"], sent)).as_py() or 0)
        kept = train.num_rows - poisoned
        if attack is ATTACKS[0]:
            clean, dropped = kept, resolution.dropped
        print(
            f"| {attack.name} | {attack.edits:,} | {poisoned:,} ({poisoned / max(1, train.num_rows):.2%}) | "
            f"{clean - kept:,} ({1 - kept / clean:.2%}) | {days_out} | {held:,} |",
            flush=True,
        )
    print(f"honest rows trained on without an attack: {clean:,}; dropped: {dropped}")
    print(f"CPU {time.process_time() - begin:.0f} s")


if __name__ == "__main__":
    main()
