"""How many answers it takes until the demo's faulty model is taken back.

Claim: a model of which .28 of the answers are edited, against .06 of its predecessor's, is taken back within 960
answers, and an equal one hardly ever within eight days.
Data: generated; the demo's 300 people, 320 answers a day, half of the people on the new model by the client's router.
The day on which the shares change decides nothing and counts as a look, as in the rollout's job.
Command: python -m benchmarks.rollback_demo [--draws 200]
"""

import argparse
import random
from dataclasses import dataclass

import numpy as np

from flywheel_assets.measures.live_arms import Arm, ArmVerdict, Look, compare_arms, find_look
from flywheel_client import assign

PEOPLE = [f"eng{number:03d}" for number in range(300)]
ANSWERS_PER_DAY, MAX_DAYS, SHARE = 320, 8, 0.5
# Two measures share the watch's .05.
ALPHA, MARGIN = 0.025, 0.1
RATES = ((0.28, 0.06), (0.28, 0.10), (0.28, 0.28))


@dataclass(frozen=True)
class TakenBack:
    """One draw's end: days and answers since the rollout began."""

    days: int
    answers: int
    own_answers: int


def play(seed: int, rate: float, rate_before: float) -> TakenBack | None:
    """Play one rollout; None: it was not taken back."""
    rng = random.Random(seed)
    is_new = {user: assign(user, [(True, SHARE), (False, 1 - SHARE)], f"assistant/{seed}") for user in PEOPLE}
    served, edited, own = dict.fromkeys(PEOPLE, 0), dict.fromkeys(PEOPLE, 0), 0
    for day in range(MAX_DAYS):
        for _ in range(ANSWERS_PER_DAY):
            user = rng.choice(PEOPLE)
            own += is_new[user]
            if day:
                served[user] += 1
                edited[user] += rng.random() < (rate if is_new[user] else rate_before)
        look = find_look(day)
        if look is None or look.day != day:
            continue
        current, predecessor = (
            Arm.from_counts(
                [edited[user] for user in PEOPLE if is_new[user] == arm],
                [served[user] for user in PEOPLE if is_new[user] == arm],
            )
            for arm in (True, False)
        )
        found = compare_arms(current, predecessor, Look(look.number + 1, day), margin=MARGIN, alpha=ALPHA)
        if found.verdict == ArmVerdict.WORSE:
            return TakenBack(day + 1, (day + 1) * ANSWERS_PER_DAY, own)
    return None


def main() -> None:
    """Print one line for each pair of edit rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args().draws
    for rate, before in RATES:
        ends = [end for seed in range(draws) if (end := play(seed, rate, before)) is not None]
        line = f"{rate:.2f} against {before:.2f}: {len(ends)} of {draws} taken back within {MAX_DAYS} days"
        if ends:
            answers, own = [end.answers for end in ends], [end.own_answers for end in ends]
            line += f"; answers {np.median(answers):.0f}, {max(answers)} at most; its own {np.median(own):.0f}, "
            line += f"{max(own)} at most"
        print(line, flush=True)


if __name__ == "__main__":
    main()
