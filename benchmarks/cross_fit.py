"""Error rates of the promotion gate for texts where votes come from the models of several folds (ADR 46).

Claim: with half a subject for each vote (`VOTE_OF_CROSS_FIT`) a challenger without gain is promoted in at most 2.5 % of
first decisions (α) in every scenario of learning; with a whole one it is not so.
Data: generated users with vectors of preferences; their mean is 0, so that nothing they teach holds for other users,
and every vote, of a model that has not seen its user, has mean 0. A fold's model learns from the other folds' users:
mean        it leans towards their mean; the vote is whether that suits the user (wins less losses of 3 rows)
fine mean   the same with votes as fine as likelihoods
ridge       ridge regression predicts what each user wants from what is known; the vote is whether its sign is right
adapter     a low-rank adapter of a frozen softmax model, trained by gradient descent on users' choices of tokens; the
            vote is whether the user's own tokens became more likely than those of another new user
nearest     it does what the nearest known user wants
majority    it takes up each rule, or its opposite, as most of its users keep it; the vote is how many the user keeps
rare        as fine mean, and one user in 20 loses much where the others gain a little
The number behind a name is that of dimensions or rules.
Peers: one vote a subject; two times the mean of the folds' p-values (Rüschendorf 1982; Vovk and Wang 2020), which holds
for every dependence; an ordinary holdout of two fifths of the users. Then the same of a challenger with a gain.
Command: python -m benchmarks.cross_fit [--replications 2000] [--only errors|power]
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flywheel_assets.promotion.text_limits import VOTE_OF_CROSS_FIT

Floats = npt.NDArray[np.float64]

ALPHA = 0.025
USERS = (40, 60, 100)
TEAMS = ((60, 2), (40, 5), (60, 5), (100, 5), (60, 10))
"""Users and folds."""
_ROWS = 3
_DRAWS = 2000
_EXPOSED = 0.4
"""Share of an ordinary holdout for teams of this size."""


@dataclass(frozen=True)
class Team:
    """Preferences of one team's users in many replications: (replications, users, dimensions)."""

    wants: Floats
    random: np.random.Generator


Learn = Callable[[Team, npt.NDArray[np.bool_]], Floats]
"""Learns from the marked users of every replication; returns every user's vote, in [−1, 1]: (replications, users)."""


def draw_team(replications: int, users: int, dimensions: int, gain: float, random: np.random.Generator) -> Team:
    """Draw users whose wants have the mean `gain` along each of their dimensions, and the spread 1."""
    return Team(random.normal(gain / np.sqrt(dimensions), 1, (replications, users, dimensions)), random)


def _vote_by_rows(team: Team, suits: Floats, noise: float = 1.0) -> Floats:
    """Count wins less losses of each user's rows, which suit more or less as the user is suited."""
    rows = suits[..., None] + noise * team.random.normal(size=(*suits.shape, _ROWS))
    return np.sign(rows).mean(axis=-1)


def learn_mean(team: Team, learns: npt.NDArray[np.bool_]) -> Floats:
    """Lean towards the mean of the users."""
    leaning = team.wants[:, learns].mean(axis=1)
    leaning /= np.linalg.norm(leaning, axis=1, keepdims=True) + 1e-12
    return _vote_by_rows(team, np.einsum("rud,rd->ru", team.wants, leaning))


def learn_mean_exactly(team: Team, learns: npt.NDArray[np.bool_]) -> Floats:
    """Lean towards the mean, with votes that are as fine as their likelihoods."""
    leaning = team.wants[:, learns].mean(axis=1)
    leaning /= np.linalg.norm(leaning, axis=1, keepdims=True) + 1e-12
    return np.clip(np.einsum("rud,rd->ru", team.wants, leaning) / 3, -1, 1)


def learn_rare(team: Team, learns: npt.NDArray[np.bool_]) -> Floats:
    """Lean towards the mean of the users, which harms a few of the others much."""
    votes = learn_mean_exactly(team, learns) / 3
    is_hit = team.random.random(votes.shape) < 0.05
    return np.clip(np.where(is_hit, -0.5, votes + 0.5 * 0.05 / 0.95), -1, 1)


def learn_majority(team: Team, learns: npt.NDArray[np.bool_]) -> Floats:
    """Take up each rule, or its opposite, that most of the users keep."""
    keeps = np.sign(team.wants)
    rules = np.sign(keeps[:, learns].sum(axis=1) + 0.5)
    return np.asarray((keeps * rules[:, None]).mean(axis=-1))


def learn_nearest(team: Team, learns: npt.NDArray[np.bool_]) -> Floats:
    """Do for each user what the nearest known one wants: the first half of the dimensions is known, the rest wanted."""
    half = team.wants.shape[-1] // 2 or 1
    known, wanted = team.wants[..., :half], team.wants[..., -half:]
    distance = ((known[:, :, None] - known[:, None, learns]) ** 2).sum(axis=-1)
    nearest = distance.argmin(axis=-1)
    answer = np.take_along_axis(wanted[:, learns], nearest[..., None], axis=1)
    return _vote_by_rows(team, (answer * wanted).sum(axis=-1) / np.sqrt(half))


def learn_ridge(team: Team, learns: npt.NDArray[np.bool_]) -> Floats:
    """Predict what each user wants from features by ridge regression; the last dimension is wanted."""
    features, wanted = team.wants[..., :-1], team.wants[..., -1]
    of = features[:, learns]
    gram = np.einsum("rud,rue->rde", of, of) + len(of[0]) * np.eye(of.shape[-1]) / 4
    solved = np.linalg.solve(gram, np.einsum("rud,ru->rd", of, wanted[:, learns])[..., None])[..., 0]
    return _vote_by_rows(team, wanted * np.einsum("rud,rd->ru", features, solved), noise=0.1)


def learn_adapter(team: Team, learns: npt.NDArray[np.bool_], steps: int = 30, rank: int = 2) -> Floats:
    """Train a low-rank adapter of a frozen softmax model by gradient descent on the users' tokens in three contexts."""
    replications, users, tokens = team.wants.shape
    contexts = 8
    frozen = np.random.default_rng(5).normal(size=(contexts, tokens))
    # The same for each fold of a team: what its users write does not depend on who learns.
    random = np.random.default_rng(int(1e6 * abs(team.wants[0, 0, 0])))
    seen = random.integers(0, contexts, (replications, users, _ROWS))
    others = random.normal(size=team.wants.shape)
    written, instead = (
        (frozen[seen] + wants[:, :, None] + random.gumbel(size=(*seen.shape, tokens))).argmax(axis=-1)
        for wants in (team.wants, others)
    )
    down = np.tile(np.random.default_rng(8).normal(size=(contexts, rank)) / np.sqrt(rank), (replications, 1, 1))
    up = np.zeros((replications, rank, tokens))
    of, to = seen[:, learns].reshape(replications, -1), written[:, learns].reshape(replications, -1)
    place = np.arange(replications)[:, None]
    inputs = np.zeros((replications, contexts))
    np.add.at(inputs, (place, of), 1.0)
    counts = np.zeros((replications, contexts, tokens))
    np.add.at(counts, (place, of, to), 1.0)
    for _ in range(steps):
        shares = _softmax(frozen + down @ up)
        slope = (counts - inputs[..., None] * shares) / of.shape[1]
        step_up, step_down = down.transpose(0, 2, 1) @ slope, slope @ up.transpose(0, 2, 1)
        up, down = up + 4.0 * step_up, down + 4.0 * step_down
    change = np.log(_softmax(frozen + down @ up)) - np.log(_softmax(frozen))
    all_teams = np.arange(replications)[:, None, None]
    return np.asarray(np.sign(change[all_teams, seen, written] - change[all_teams, seen, instead]).mean(axis=-1))


def _softmax(logits: Floats) -> Floats:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


LEARNERS: dict[str, tuple[Learn, int]] = {
    "mean 1": (learn_mean, 1),
    "mean 8": (learn_mean, 8),
    "mean 64": (learn_mean, 64),
    "fine mean 64": (learn_mean_exactly, 64),
    "ridge 8": (learn_ridge, 9),
    "adapter 6": (learn_adapter, 6),
    "nearest 8": (learn_nearest, 8),
    "majority 1": (learn_majority, 1),
    "majority 64": (learn_majority, 64),
    "rare 64": (learn_rare, 64),
}


POWER = ("mean 8", "majority 1")


def compute_p_values(votes: Floats, worth: float) -> Floats:
    """Compute for each replication the level at which Gaffke's bound of its users' votes would just exceed 0."""
    random = np.random.default_rng(0)
    weights = random.standard_gamma(np.full(votes.shape[1], worth), (_DRAWS, votes.shape[1]))
    unseen = random.standard_exponential(_DRAWS)
    return np.asarray(((weights @ np.sort(votes, axis=1).T - unseen[:, None]) <= 0).mean(axis=0))


def decide_ways(team: Team, learn: Learn, folds: int) -> dict[str, Floats]:
    """Decide about every replication by each way: True where the challenger is promoted."""
    users = team.wants.shape[1]
    fold = np.arange(users) % folds
    votes = np.empty(team.wants.shape[:2])
    for each in range(folds):
        votes[:, fold == each] = learn(team, fold != each)[:, fold == each]
    of_folds = [compute_p_values(votes[:, fold == each], 1.0) for each in range(folds)]
    learns = np.arange(users) >= round(_EXPOSED * users)
    alone = learn(team, learns)[:, ~learns]
    return {
        "whole votes": compute_p_values(votes, 1.0) <= ALPHA,
        "half votes": compute_p_values(votes, VOTE_OF_CROSS_FIT) <= ALPHA,
        "2 x mean of p": 2 * np.mean(of_folds, axis=0) <= ALPHA,
        "holdout": compute_p_values(alone, 1.0) <= ALPHA,
    }


WAYS = ("whole votes", "half votes", "2 x mean of p", "holdout")


def measure(learner: str, users: int, folds: int, gain: float, replications: int) -> dict[str, float]:
    """Measure by way the share of challengers that are promoted."""
    learn, dimensions = LEARNERS[learner]
    seed = sum(map(ord, learner)) * 1000 + users * 10 + folds
    promoted = decide_ways(draw_team(replications, users, dimensions, gain, np.random.default_rng(seed)), learn, folds)
    return {way: float(promoted[way].mean()) for way in WAYS}


def show(title: str, asked: list[tuple[str, int, int, float]], replications: int) -> None:
    """Measure, and print a table in percent, with the largest of each way."""
    print(f"\n{title}; standard error at 2.5 %: {100 * np.sqrt(ALPHA * (1 - ALPHA) / replications):.2f}")
    print(f"{'':40}" + "".join(f"{way:>15}" for way in WAYS))
    largest = dict.fromkeys(WAYS, 0.0)
    for learner, users, folds, gain in asked:
        row = measure(learner, users, folds, gain, replications)
        name = f"{learner}, {users} users, {folds} folds, gain {gain}"
        print(f"{name:40}" + "".join(f"{100 * row[way]:15.2f}" for way in WAYS), flush=True)
        largest = {way: max(largest[way], row[way]) for way in WAYS}
    print(f"{'largest':40}" + "".join(f"{100 * largest[way]:15.2f}" for way in WAYS))


def main() -> None:
    """Run the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--only", choices=("errors", "power"))
    asked = parser.parse_args()
    if asked.only != "power":
        errors = [(learner, users, folds, 0.0) for learner in LEARNERS for users, folds in TEAMS]
        show("Promoted without any gain, %", errors, asked.replications)
    if asked.only != "errors":
        gains = [(learner, users, 5, gain) for learner in POWER for gain in (0.3, 0.6, 1.0) for users in USERS]
        show("Promoted with a gain, %", gains, asked.replications)


if __name__ == "__main__":
    main()
