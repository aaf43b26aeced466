"""Which closed gold days a version cut now could treat otherwise than the last trained one did; from accounts alone."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

from flywheel_assets.lake.daily.ledger import ClosedDay
from flywheel_assets.lake.tables.lake import Lake
from flywheel_assets.lake.versions.exclusions import in_force
from flywheel_assets.lake.versions.exports import Manifest


def fresh_days(
    lake: Lake, trained: Manifest | None, rules: Mapping[str, Any], closed: Mapping[date, ClosedDay]
) -> dict[date, ClosedDay]:
    """The days that are new or hold something else since; all of them when rules or exclusions have changed.

    Args:
        lake: the application's tables.
        trained: of the last trained version; None: there is none.
        rules: by which a version cut now would resolve, as it would record them.
        closed: every closed gold day.
    """
    if trained is None or not _decides_as_now(lake, trained, rules):
        return dict(closed)
    return {day: each for day, each in closed.items() if trained.days.get(day.isoformat()) != each.content_hash}


def _decides_as_now(lake: Lake, trained: Manifest, rules: Mapping[str, Any]) -> bool:
    # A manifest's rules went through JSON, which knows no tuples.
    as_recorded = json.loads(json.dumps(rules))
    return trained.rules == as_recorded and set(trained.exclusions) == {each.id for each in in_force(lake)}
