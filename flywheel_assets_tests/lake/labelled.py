"""Scores and labels landed on the day they were received, and everything materialized up to `hard_examples`."""

from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any

from flywheel_assets.curation.labels.label_breaker import LabelBreakerLimits
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.sampling import SamplingRules
from flywheel_assets.curation.labels.score_contract import FeatureType, ScoreContract
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry, audit_accounts
from flywheel_assets.lake.daily.mine_days import mine_days
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import HARD_EXAMPLES
from flywheel_assets_tests.builders import DAY, NOON, make_label, make_score
from flywheel_assets_tests.lake.workbench import Workbench, stamp

CONTRACT = ScoreContract(
    features={"amount": FeatureType.NUMBER, "night": FeatureType.BOOLEAN, "country": FeatureType.TEXT}
)
# Everything is drawn, so that a test sees every row.
RULES = MiningRules(maturity_days=7, sampling=SamplingRules(floor=1.0))
DEFAULT_LIMITS = LabelBreakerLimits()


def score(on: date, name: str, **more: Any) -> dict[str, Any]:
    received = datetime.combine(on, time(12), NOON.tzinfo)
    row = {"prediction_id": name, "event_id": f"p-{name}-{on}", "received_at": received, "occurred_at": received}
    return make_score(**{**row, **more})


def label(on: date, name: str, **more: Any) -> dict[str, Any]:
    received = datetime.combine(on, time(13), NOON.tzinfo)
    row = {"prediction_id": name, "event_id": f"l-{name}-{on}", "received_at": received, "occurred_at": received}
    return make_label(**{**row, **more})


def run(
    bench: Workbench,
    events: Sequence[dict[str, Any]],
    last: date,
    rules: MiningRules = RULES,
    contract: ScoreContract = CONTRACT,
    each_day: bool = False,
    limits: LabelBreakerLimits = DEFAULT_LIMITS,
) -> dict[date, LedgerEntry]:
    """Land the events on the day they were received and materialize everything up to `last`."""
    for kind, is_score in ((EventKind.PREDICTION, True), (EventKind.FEEDBACK, False)):
        of_kind = [row for row in events if ("score" in row) is is_score]
        for on in {row["received_at"].date() for row in of_kind}:
            bench.land(kind, on, [row for row in of_kind if row["received_at"].date() == on])
    days = ledger.list_days(DAY, last)
    bench.ingest_both(days)
    bench.join(days)
    return mine(bench, days, rules, contract, each_day, limits)


def mine(
    bench: Workbench,
    days: Sequence[date],
    rules: MiningRules = RULES,
    contract: ScoreContract = CONTRACT,
    each_day: bool = False,
    limits: LabelBreakerLimits = DEFAULT_LIMITS,
) -> dict[date, LedgerEntry]:
    entries: dict[date, LedgerEntry] = {}
    for some in [[each] for each in days] if each_day else [days]:
        entries |= mine_days(bench.lake, some, bench.start, bench.window, contract, rules, stamp(), limits)
    assert audit_accounts(bench.lake, HARD_EXAMPLES).discrepancies == ()
    return entries
