"""Checks the signs of a classification wheel that fails quietly: calibration, labels, refusals and drift.

Each warns. Its sentence names the counts, and the next action where it fails.
"""

import math
from collections import Counter
from collections.abc import Sequence

import dagster as dg

from flywheel_assets.application import ClassificationApplication
from flywheel_assets.defs.resources import Stores
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.reports import FIRST_DAYS, count_disputes
from flywheel_assets.lake.tables.specs import DRIFT_REPORTS, HARD_EXAMPLES
from flywheel_assets.lake.versions.example_versions import measure_live_calibration
from flywheel_assets.lake.versions.folders import Promotion, Versions, read_promotion
from flywheel_assets.records import Reason

RECENT_DAYS = 28
"""Closed days that the shares of labels are taken over."""
MIN_LABELS = 20
"""Fewer labels say nothing about a share."""
MAX_UNMATCHED_SHARE = 0.05
"""Of the labels that found their prediction, or did not."""
MAX_DISPUTED_SHARE = 0.05
"""Of the labelled predictions."""
MAX_REFUSALS = 2
"""Versions that may be refused in a row before a check names the rule that refuses them."""


def build_classifier_checks(application: ClassificationApplication) -> Sequence[dg.AssetChecksDefinition]:
    """Build the checks that only a classification application has."""
    return [
        _build_drift_check(application),
        _build_calibration_check(application),
        _build_match_check(application),
        _build_window_check(application),
        _build_dispute_check(application),
        _build_promotion_check(application),
    ]


def _warn(sentence: str, *, passed: bool, **metadata: float | int | str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, description=sentence, metadata=metadata
    )


def _build_drift_check(application: ClassificationApplication) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[application.name, "drift_report"],
        description="On the newest reported day no feature and no score is further from the reference than the limits "
        "allow: the champion's training rows, or before it the first served days.",
    )
    def fields_have_not_drifted(stores: Stores) -> dg.AssetCheckResult:
        lake = stores.lake(application.name)
        days = sorted(lake.count_rows_per_day(DRIFT_REPORTS))
        rows = lake.read(DRIFT_REPORTS, days[-1:]).to_pylist() if days else []
        breached = {row["field"]: row["breach"] for row in rows if row["breach"]}
        compared = [row for row in rows if row["psi"] is not None]
        counts = {"fields": len(rows), "compared": len(compared), "drifted": len(breached)}
        if breached:
            shown = "; ".join(f"{field}: {breach}" for field, breach in list(breached.items())[:5])
            sentence = f"{days[-1]}, {len(breached)} of {len(rows)} fields: {shown}. Ask their source what changed"
            return _warn(sentence, passed=False, **counts)
        if not rows:
            sentence = f"nothing can be compared: no champion, and at most {FIRST_DAYS} days with predictions"
            return _warn(sentence, passed=True, **counts)
        if not compared:
            sentence = f"nothing can be compared: fewer than {application.drift.min_rows:,} rows a week"
            return _warn(sentence, passed=True, **counts)
        most = max(compared, key=lambda row: row["psi"])
        sentence = (
            f"{days[-1]}: {len(compared)} of {len(rows)} fields compared with {most['reference_version']}, none has "
            f"drifted; most has {most['field']}, PSI {most['psi']:.3f}"
        )
        return _warn(sentence, passed=True, **counts)

    return fields_have_not_drifted


def _build_calibration_check(application: ClassificationApplication) -> dg.AssetChecksDefinition:
    trigger = application.trigger

    @dg.asset_check(
        asset=[application.name, HARD_EXAMPLES.name],
        description="As many positives come as the served scores predict, within the limits of the trigger.",
    )
    def served_scores_are_calibrated(stores: Stores) -> dg.AssetCheckResult:
        live = measure_live_calibration(stores.lake(application.name), application.examples, trigger.calibration_days)
        if live.ratio is None:
            return _warn(f"no positive among the last {trigger.calibration_days} matured days", passed=True)
        counts = {"ratio": round(live.ratio, 3), "positives": live.positives}
        if live.positives < trigger.min_calibration_positives:
            sentence = (
                f"{live.positives} positives are too few to judge {live.ratio:.2f} predicted for each, "
                f"{trigger.min_calibration_positives} are needed"
            )
            return _warn(sentence, passed=True, **counts)
        # The count of positives is nearly all of the noise: Poisson, on the logarithm.
        spread = math.exp(1.96 / math.sqrt(live.positives))
        least, most = trigger.min_calibration_ratio, trigger.max_calibration_ratio
        passed = least <= live.ratio <= most
        sentence = (
            f"{live.model_version or 'the model'} predicted {live.ratio:.2f} [{live.ratio / spread:.2f}, "
            f"{live.ratio * spread:.2f}] positives for each of {live.positives} that came, {least:.2f} to {most:.2f} "
            "are allowed"
        )
        advice = f"; `flywheel turn --application {application.name}` cuts a version for it, once its pause is over"
        return _warn(sentence if passed else sentence + advice, passed=passed, **counts)

    return served_scores_are_calibrated


def _build_match_check(application: ClassificationApplication) -> dg.AssetChecksDefinition:
    joined = application.tables.joined.name

    @dg.asset_check(
        asset=[application.name, joined],
        description=f"Of the labels of the last {RECENT_DAYS} closed days at most {MAX_UNMATCHED_SHARE:.0%} wait for "
        "their prediction or have given up on it.",
    )
    def labels_find_their_predictions(stores: Stores) -> dg.AssetCheckResult:
        entries = ledger.read_entries(stores.lake(application.name), joined).values()
        closed = [each for each in entries if each.is_closed]
        recent = closed[-RECENT_DAYS:]
        matched = sum(each.rows_kept for each in recent)
        expired = sum(each.rows_by_reason.get(Reason.NO_PREDICTION_IN_WINDOW.value, 0) for each in recent)
        # What waits is carried from day to day: of the labels of these days it is what was added to it.
        waiting, before = (
            days[-1].rows_by_reason.get(Reason.WAITING_FOR_PREDICTION.value, 0) if days else 0
            for days in (closed, closed[:-RECENT_DAYS])
        )
        missing = max(0, expired + waiting - before)
        labels = matched + missing
        counts = {"matched": matched, "waiting": waiting, "expired": expired}
        sentence = (
            f"{missing:,} of {labels:,} labels of the last {len(recent)} closed days found no prediction; {waiting:,} "
            f"wait in all, {expired:,} waited past {application.window.longest_wait_days} days"
        )
        passed = labels < MIN_LABELS or missing <= MAX_UNMATCHED_SHARE * labels
        advice = "; compare the ids in both systems: `flywheel trace ID` shows one label"
        return _warn(sentence if passed else sentence + advice, passed=passed, **counts)

    return labels_find_their_predictions


def _build_window_check(application: ClassificationApplication) -> dg.AssetChecksDefinition:
    joined = application.tables.joined

    @dg.asset_check(
        asset=[application.name, joined.name],
        description=f"No label of the last {RECENT_DAYS} closed days came later than the join window: it is joined all "
        "the same, but its prediction counted as a negative for longer than the window says.",
    )
    def labels_come_within_the_window(stores: Stores) -> dg.AssetCheckResult:
        lake, limit = stores.lake(application.name), application.window.join_days
        days = list(ledger.read_closed_days(lake, joined.name))[-RECENT_DAYS:]
        columns = ["completed_date", "feedback_received_date", "prediction_received_date"]
        rows = lake.read(joined, days, columns=columns).to_pylist() if days else []
        delays = [
            (row["completed_date"], delay)
            for row in rows
            if row["prediction_received_date"] is not None
            and (delay := (row["feedback_received_date"] - row["prediction_received_date"]).days) > limit
        ]
        longest = max((delay for _, delay in delays), default=0)
        sentence = (
            f"{len(delays):,} labels of the last {len(days)} closed days came later than the window of {limit} days"
        )
        advice = ""
        if delays:
            newest = max(day for day, _ in delays)
            on_newest = sum(day == newest for day, _ in delays)
            advice = (
                f", at most {longest} days after their predictions; {on_newest:,} of them on {newest}, the newest day. "
                f"window=JoinWindow(join_days={longest}) takes them in time"
            )
        return _warn(sentence + advice, passed=not delays, late=len(delays), longest_delay_days=longest)

    return labels_come_within_the_window


def _build_dispute_check(application: ClassificationApplication) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[application.name, HARD_EXAMPLES.name],
        description=f"Of the predictions labelled in the last {RECENT_DAYS} closed days at most "
        f"{MAX_DISPUTED_SHARE:.0%} are disputed: no version trains on those.",
    )
    def labels_agree(stores: Stores) -> dg.AssetCheckResult:
        lake = stores.lake(application.name)
        days = list(ledger.read_closed_days(lake, HARD_EXAMPLES.name))[-RECENT_DAYS:]
        if not days:
            return _warn("no day is closed yet", passed=True)
        found = count_disputes(lake, application.mining.labels, days)
        passed = found.labelled < MIN_LABELS or found.disputed <= MAX_DISPUTED_SHARE * found.labelled
        sentence = f"{found.disputed:,} of {found.labelled:,} labelled predictions are disputed"
        advice = (
            "; rank the sources in LabelRules.trusted_tiers, or let LabelRules.disagreement take the majority or shares"
        )
        counts = {"labelled": found.labelled, "disputed": found.disputed}
        return _warn(sentence if passed else sentence + advice, passed=passed, **counts)

    return labels_agree


def _build_promotion_check(application: ClassificationApplication) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=[application.name, "promotion"],
        description=f"At most {MAX_REFUSALS} versions in a row were refused; else the rule that refuses them is named.",
    )
    def versions_get_promoted(stores: Stores) -> dg.AssetCheckResult:
        refusals = list_refusals(stores.versions(application.name))
        if len(refusals) <= MAX_REFUSALS:
            return _warn(f"{len(refusals)} versions in a row were refused", passed=True, refused=len(refusals))
        return _warn(describe_refusals(refusals), passed=False, refused=len(refusals))

    return versions_get_promoted


def list_refusals(versions: Versions) -> list[Promotion]:
    """List the refusals since the last promotion, newest first; versions behind a rollback do not count."""
    refusals = []
    for folder in reversed(list(versions)):
        if folder.is_finished and not folder.undone.exists():
            decision = read_promotion(folder.promotion)
            if decision.promoted:
                break
            refusals.append(decision)
    return refusals


def describe_refusals(refusals: Sequence[Promotion]) -> str:
    """Name the check that refused most of the versions, and its distance from the limit in the newest of them."""
    failed = [
        (decision, check) for decision in refusals for check in decision.checks if not check["ok"]
    ]  # newest first
    counted = Counter(check["name"] for _, check in failed)
    if not counted:
        return f"{len(refusals)} versions in a row were refused without a failed check: read their `decision`"
    [(name, times)] = counted.most_common(1)
    decision, check = next((decision, check) for decision, check in failed if check["name"] == name)
    distance = abs(float(check["value"]) - float(check["limit"]))
    return (
        f"{len(refusals)} versions in a row were refused, {times} of them by {name}; in {decision.version} it was "
        f"{check['value']:.4g}, {distance:.3g} from the limit {check['limit']:.4g}: {check['detail']}. Change what it "
        "measures, or its limit in ClassifierLimits"
    )
