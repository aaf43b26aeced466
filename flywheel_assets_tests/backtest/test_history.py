"""What is known on which day: no label that lands on a day or later may be used by a model of that day."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pytest

from flywheel_assets.backtest.history import open_history
from flywheel_assets.backtest.rivals import WEEKLY, Rival, find_last_matured_day, fit_rival, list_rivals
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.errors import EmptyVersionError, InvalidRuleError
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets_tests.backtest.traffic import FIRST, GO_LIVE, LAST, land_history
from flywheel_assets_tests.builders import make_label, make_score
from flywheel_assets_tests.e2e.fraud_traffic import APPLICATION
from flywheel_assets_tests.lake.workbench import Workbench


def at_noon(on: date) -> datetime:
    return datetime.combine(on, time(12), UTC)


def test_a_label_is_known_from_the_day_after_it_landed(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud")
    features = '{"risk":0.5,"country":"NL"}'
    when = {"received_at": at_noon(FIRST), "occurred_at": at_noon(FIRST)}
    made = [make_score(prediction_id=name, event_id=name, features=features, **when) for name in ("a", "b")]
    bench.land(EventKind.PREDICTION, FIRST, made)
    landed = FIRST + timedelta(days=9)
    said = {"received_at": at_noon(landed), "occurred_at": at_noon(landed)}
    bench.land(EventKind.FEEDBACK, landed, [make_label(event_id="l", prediction_id="b", **said)])
    with open_history(APPLICATION, DiskLanding(bench.landing), FIRST, FIRST, tmp_path / "work") as history:
        assert history.last_day == landed
        assert not history.resolve(landed, FIRST).is_positive.any()
        known = history.resolve(landed + timedelta(days=1), FIRST)
        assert [history.ids[number] for number in known.numbers[known.is_positive]] == ["b"]


def test_rows_stay_with_their_scores_and_days(tmp_path: Path) -> None:
    """Sorted rows once came in the order in which threads finished: static's AP fell from .68 to .01."""
    with open_history(APPLICATION, land_history(tmp_path, 150), GO_LIVE, LAST, tmp_path / "work") as history:
        assert (np.diff(history.ordinals) >= 0).all()
        assert len(history.find_rows(GO_LIVE, GO_LIVE)) == 150
        assert all(str(GO_LIVE) in history.ids[number] for number in history.find_rows(GO_LIVE, GO_LIVE))
        assert history.delay is not None
        assert history.delay.find_age(0.95) == 10


def test_rivals_train_on_matured_days_only_each_on_its_rows(tmp_path: Path) -> None:
    with open_history(APPLICATION, land_history(tmp_path), GO_LIVE, LAST, tmp_path / "work") as history:
        until = find_last_matured_day(GO_LIVE, 7)
        assert until == GO_LIVE - timedelta(days=8)
        known = history.resolve(GO_LIVE, until, [0.2])
        assert history.ordinals[known.numbers].max() == until.toordinal()
        fitted = {
            rival.name: fit_rival(rival, history, known, GO_LIVE, APPLICATION.recipe, 0, tmp_path)
            for rival in list_rivals((0.2,))
        }
        rows = {name: model.rows for name, model in fitted.items() if model is not None}
        assert rows[WEEKLY] == len(known.numbers) == 35 * 60
        assert rows["weekly, sliding 4 weeks"] == 28 * 60
        positives = int(known.is_positive.sum())
        assert rows["weekly, 1:10 undersample, prior-corrected"] == 11 * positives
        assert positives < rows["weekly, surprise sampling, floor 0.2"] < len(known.numbers)
        # The correction gives back what the dropped negatives took.
        expected = known.is_positive.mean()
        for model in fitted.values():
            assert model is not None
            assert model.score(history.features).mean() == pytest.approx(expected, rel=0.25)


def test_where_silence_says_nothing_labelled_rows_stand_for_all(tmp_path: Path) -> None:
    """A word list that moderators follow once read AP .872 instead of .663: what it flags was counted as everything."""
    application = replace(APPLICATION, mining=MiningRules(silence="unknown"))
    bench = Workbench(tmp_path, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud")
    when = {"received_at": at_noon(FIRST), "occurred_at": at_noon(FIRST), "features": '{"risk":0.5,"country":"NL"}'}
    chances = {"flagged": 1.0, "looked_at": 0.2, "silent": 0.2}
    made = [make_score(prediction_id=name, event_id=name, label_propensity=p, **when) for name, p in chances.items()]
    bench.land(EventKind.PREDICTION, FIRST, made)
    labels = [
        make_label(event_id=name, prediction_id=name, received_at=at_noon(FIRST)) for name in ("flagged", "looked_at")
    ]
    bench.land(EventKind.FEEDBACK, FIRST, labels)
    with open_history(application, DiskLanding(bench.landing), FIRST, FIRST, tmp_path / "work") as history:
        known = history.resolve(FIRST + timedelta(days=1), FIRST)
        weights = {history.ids[number]: weight for number, weight in zip(known.numbers, known.weights, strict=True)}
        assert weights == {"flagged": 1.0, "looked_at": 5.0}
        assert history.delay is None


def test_too_few_positives_give_no_model(tmp_path: Path) -> None:
    with open_history(APPLICATION, land_history(tmp_path), GO_LIVE, LAST, tmp_path / "work") as history:
        known = history.resolve(FIRST + timedelta(days=1), FIRST)
        assert fit_rival(Rival(WEEKLY), history, known, FIRST, APPLICATION.recipe, 0, tmp_path) is None


def test_a_range_without_predictions_names_the_days_that_there_are(tmp_path: Path) -> None:
    landing = land_history(tmp_path, 5)
    later = LAST + timedelta(days=5)
    with (
        pytest.raises(InvalidRuleError, match=f"{FIRST} … {LAST}.*flywheel import FILE --history"),
        open_history(APPLICATION, landing, later, later + timedelta(days=14), tmp_path / "work"),
    ):
        pass


def test_a_history_without_labels_is_refused(tmp_path: Path) -> None:
    bench = Workbench(tmp_path, start=FIRST, tables=CLASSIFICATION_TABLES, application="fraud")
    score = make_score(features='{"risk":0.5,"country":"NL"}', received_at=at_noon(FIRST), occurred_at=at_noon(FIRST))
    bench.land(EventKind.PREDICTION, FIRST, [score])
    with (
        pytest.raises(EmptyVersionError, match="no label of fraud has landed"),
        open_history(APPLICATION, DiskLanding(bench.landing), FIRST, LAST, tmp_path / "work"),
    ):
        pass
