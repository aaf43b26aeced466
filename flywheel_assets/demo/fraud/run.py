"""Runs `flywheel demo --application fraud`: a new card fraud appears, and the classifier learns it from late labels."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import dagster as dg
from rich.console import Console

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.applications.fraud import APPLICATION
from flywheel_assets.backtest.report import write_backtest
from flywheel_assets.defs.flywheels import classification_flywheel
from flywheel_assets.defs.resources import Clock
from flywheel_assets.defs.running import Ticked
from flywheel_assets.demo.dagster_wheel import DagsterWheel, clear, open_home
from flywheel_assets.demo.fraud._narration import print_rivals
from flywheel_assets.demo.fraud._rivals import compare_with_rivals
from flywheel_assets.demo.fraud.demo import FraudDemoPlan, prepare, run_fraud_demo
from flywheel_assets.demo.fraud.report import ClassifierTurn, FraudDemoReport, MinedDays
from flywheel_assets.evaluation.classifier import read_evaluation
from flywheel_assets.evaluation.requests import CHALLENGER, INCUMBENT
from flywheel_assets.extras import require_extra
from flywheel_assets.lake.daily.ledger import read_entries, sum_by_reason
from flywheel_assets.lake.tables.specs import HARD_EXAMPLES
from flywheel_assets.lake.versions.exports import ExportSet, read_manifest
from flywheel_assets.lake.versions.folders import read_promotion
from flywheel_assets.settings import read_settings
from flywheel_assets.stores import Stores
from flywheel_assets.training.classifier import read_training


def configure_demo(plan: FraudDemoPlan) -> ClassificationApplication:
    """Configure the shipped application of `applications/fraud.py` for the simulated bank.

    Only two fields are the world's: its first day, and the score from which the bank blocks.
    """
    return replace(APPLICATION, start_date=plan.first_day, threshold=plan.policy.block_from)


def run(seed: int, console: Console) -> FraudDemoReport:
    """Play the demo in a fresh home.

    Raises:
        TrainingError: a run failed; its logs are in the demo's Dagster instance.
        SettingsError: the extra `classifier` is not installed.
    """
    require_extra("classifier", "the demo")
    return play(FraudDemoPlan(first_day=APPLICATION.start_date, seed=seed), console)


def play(plan: FraudDemoPlan, console: Console) -> FraudDemoReport:
    """Play any plan in a fresh home.

    Raises:
        TrainingError: a run failed; its logs are in the demo's Dagster instance.
    """
    home = read_settings().resolve_home()
    clear(home)
    application = configure_demo(plan)
    bank, static = prepare(plan, home / "demo" / "static", console)

    def configured(_: int, clock: Clock) -> tuple[ClassificationApplication, dg.Definitions]:
        return application, classification_flywheel(application, clock=clock)

    with open_home(application, plan.first_day) as (instance, door):
        wheel = DagsterWheel(instance, configured, _count_days, _report_turn)
        report = run_fraud_demo(wheel, bank, static, door, plan, home / "demo", console)
    with console.status("fitting simpler ways to retrain, week by week, on the same stream"):
        compared = compare_with_rivals(application, report, Stores())
    write_backtest(compared.since_emergence, home / "demo" / "backtest")
    print_rivals(console, compared, home / "demo" / "backtest")
    return report


def _count_days(days: Sequence[date]) -> MinedDays:
    entries = read_entries(Stores().lake(APPLICATION.name), HARD_EXAMPLES.name, days).values()
    return MinedDays(
        rows=sum(entry.rows_in for entry in entries),
        kept=sum(entry.rows_kept for entry in entries),
        dropped=sum_by_reason(entries),
    )


def _report_turn(ticked: Ticked, seconds: float) -> ClassifierTurn:
    assert ticked.version is not None
    stores = Stores()
    folder = stores.versions(APPLICATION.name).folder(ticked.version)
    manifest = read_manifest(folder.export)
    evaluation = read_evaluation(folder.evaluation)
    training, promotion = read_training(folder.training), read_promotion(folder.promotion)
    champion = stores.registry(APPLICATION.name).find_champion()
    of_challenger, of_incumbent = (evaluation.scores[model].overall for model in (CHALLENGER, INCUMBENT))
    return ClassifierTurn(
        version=ticked.version,
        reason=ticked.reason,
        train_rows=manifest.files[ExportSet.TRAIN].rows,
        train_positives=training.positives,
        test_rows=evaluation.rows,
        test_positives=of_challenger.positives,
        ap_incumbent=of_incumbent.average_precision,
        ap_challenger=of_challenger.average_precision,
        promoted=promotion.promoted,
        sentence=promotion.sentence,
        seconds=seconds,
        champion=champion.model_dir if champion else None,
        fit_seconds=training.seconds,
        threshold=promotion.threshold,
    )
