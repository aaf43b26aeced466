from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.demo.fraud.bank import PREHISTORY_DAYS, Bank, DeployedClassifier, Policy, live_prehistory
from flywheel_assets.demo.fraud.labels import Action, Outside
from flywheel_assets.demo.fraud.world import Floats, FraudWorld

FIRST = date(2026, 3, 2)
WORLD = FraudWorld(cards=250, terminals=300, terminals_compromised_per_day=0.0005, emerges_on=date.min)


@dataclass
class Constant:
    """A model that gives every payment the same score."""

    value: float
    model_version: str = "constant"

    def score(self, features: pa.Table) -> Floats:
        """The value, as often as there are payments."""
        return np.full(features.num_rows, self.value)


def bank(first_day: date = FIRST) -> Bank:
    return Bank(WORLD, Outside(), Policy(), first_day)


def test_scores_become_actions() -> None:
    scores, draw = np.array([0.1, 0.4, 0.79, 0.8, 0.8]), np.array([0.0, 0.0, 0.0, 0.19, 0.2])
    actions, propensity = Policy(block_from=0.8, review_from=0.4, let_through_share=0.2).decide(scores, draw)
    assert actions == [Action.ALLOW, Action.REVIEW, Action.REVIEW, Action.ALLOW, Action.BLOCK]
    assert propensity.tolist() == [1.0, 1.0, 1.0, 0.2, 0.2]


def test_every_label_is_heard_on_its_own_day_and_about_an_earlier_payment() -> None:
    lived = [bank.live(FIRST + timedelta(days=offset), None) for bank in [bank()] for offset in range(40)]
    heard = [(day, about, label) for day in lived for about, label in day.heard]
    assert len(heard) > 50
    assert all(label.occurred_at.date() == day.payments.day >= about.day for day, about, label in heard)
    assert any((day.payments.day - about.day).days > 14 for day, about, _ in heard)


def test_a_model_that_blocks_everything_lets_a_known_share_through_and_hears_of_no_other() -> None:
    branch = bank()
    lived = [branch.live(FIRST + timedelta(days=offset), Constant(0.95)) for offset in range(40)]
    blocked = {
        (day.payments.day, number)
        for day in lived
        for number, action in enumerate(day.actions)
        if action is Action.BLOCK
    }
    payments = sum(len(day.payments) for day in lived)
    assert len(blocked) / payments == pytest.approx(0.8, abs=0.02)
    assert all((day.allow_propensity == 0.2).all() for day in lived)
    about = {(about.day, label.number) for day in lived for about, label in day.heard}
    assert about
    assert not about & blocked


def test_the_static_model_finds_fraud_that_it_was_not_trained_on(tmp_path: Path) -> None:
    branch = bank(FIRST - timedelta(days=PREHISTORY_DAYS))
    static = live_prehistory(branch, FIRST, tmp_path)
    assert static.positives > 50
    assert (tmp_path / "model.txt").read_text().startswith("tree")
    model = DeployedClassifier(static.folder, "static")
    week = [branch.live(FIRST + timedelta(days=offset), model) for offset in range(7)]
    scores = np.concatenate([day.scores for day in week])
    is_fraud = np.concatenate([day.payments.is_fraud for day in week])
    highest = np.argsort(-scores)[: is_fraud.sum()]
    assert is_fraud[highest].mean() > 0.4 > 10 * is_fraud.mean()
    assert {day.model_version for day in week} == {"static"}
