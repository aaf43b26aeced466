"""`HistoryLog`: the day of each row, bounded memory, who decides, what is known already, and what a kill leaves."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.history import HistoryLog, find_day
from flywheel_assets.errors import InvalidRuleError
from flywheel_assets.lake.daily.history import list_history_imports
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets_tests.builders import make_feedback, make_prediction
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def row(kind: EventKind, **overrides: object) -> LandedRow:
    made = make_prediction(**overrides) if kind is EventKind.PREDICTION else make_feedback(**overrides)
    return LandedRow(kind, msgspec.json.encode({"event_id": made.pop("event_id"), **made}) + b"\n")


def open_log(root: Path, spill_bytes: int = 2**20, **decision: str) -> HistoryLog:
    bench = Workbench(root)
    given = {"who": "ada", "reason": "moved here", "file": "f.jsonl", **decision}
    return HistoryLog(
        bench.lake,
        DiskLanding(bench.landing),
        root / "history",
        clock=lambda: LONG_AFTER,
        spill_bytes=spill_bytes,
        **given,
    )


@pytest.mark.parametrize(
    ("kind", "times", "expected"),
    [
        (EventKind.PREDICTION, {"occurred_at": "2026-03-02T23:59:59.999999Z"}, date(2026, 3, 2)),
        (EventKind.PREDICTION, {"occurred_at": "2026-03-03T01:00:00+02:00"}, date(2026, 3, 2)),
        (EventKind.FEEDBACK, {"occurred_at": "2026-03-02T10:00:00Z"}, date(2026, 3, 2)),
        (
            EventKind.FEEDBACK,
            {"occurred_at": "2026-03-02T10:00:00Z", "known_at": "2026-04-01T00:00:00Z"},
            date(2026, 4, 1),
        ),
    ],
)
def test_a_prediction_belongs_to_when_it_happened_and_feedback_to_when_it_became_known(
    kind: EventKind, times: dict[str, str], expected: date
) -> None:
    line = {"event_id": "e", "received_at": "2026-05-01T00:00:00Z", **times}
    assert find_day(LandedRow(kind, msgspec.json.encode(line))) == expected


def test_rows_land_on_their_days_whatever_the_memory_and_none_behind_today(tmp_path: Path) -> None:
    rows = [
        row(EventKind.FEEDBACK, event_id=f"{number:032}", occurred_at=NOON + timedelta(days=number % 7))
        for number in range(70)
    ]
    rows.append(row(EventKind.FEEDBACK, event_id="f" * 32, occurred_at=LONG_AFTER + timedelta(hours=20)))
    with open_log(tmp_path, spill_bytes=2000) as log:
        for each in rows:
            log.add([each])
        published = log.publish()
    zone = Workbench(tmp_path).zone(EventKind.FEEDBACK)
    assert published.days[EventKind.FEEDBACK] == zone.list_days()
    assert zone.list_days()[-1] == LONG_AFTER.date()
    for number in range(7):
        [path] = zone.look(NOON.date() + timedelta(days=number)).paths
        assert path.read_bytes() == b"".join(each.line for each in rows[number:70:7])
    assert list((tmp_path / "history").iterdir()) == []


def test_what_a_day_holds_already_does_not_land_again(tmp_path: Path) -> None:
    rows = [row(EventKind.PREDICTION, event_id=f"{number:032}", occurred_at=NOON) for number in range(4)]
    for some, landed, known in ((rows[:2], 2, 0), (rows, 2, 2), (rows, 0, 4)):
        with open_log(tmp_path) as log:
            log.add(some)
            published = log.publish()
        assert (published.events, published.known) == (landed, known)
    [zone_day] = Workbench(tmp_path).zone(EventKind.PREDICTION).list_days()
    landed_day = Workbench(tmp_path).zone(EventKind.PREDICTION).look(zone_day)
    assert sorted(b"".join(path.read_bytes() for path in landed_day.paths).splitlines(keepends=True)) == sorted(
        each.line for each in rows
    )
    # Both came at one moment: they are two decisions all the same.
    first, second = sorted(list_history_imports(Workbench(tmp_path).lake), key=lambda each: len(each.list_reopened()))
    assert (first.list_days(), first.list_reopened()) == ([NOON.date()], [])
    assert (second.list_days(), second.list_reopened()) == ([NOON.date()], [NOON.date()])


@pytest.mark.parametrize("missing", ["who", "reason"])
def test_history_without_a_decision_that_can_be_audited_is_refused(tmp_path: Path, missing: str) -> None:
    with pytest.raises(InvalidRuleError, match="needs who decides and why"):
        open_log(tmp_path, **{missing: " "})


def test_what_a_killed_import_left_on_the_scratch_disk_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    (tmp_path / "history" / "killed").mkdir(parents=True)
    (tmp_path / "history" / "killed" / "feedback-2026-03-02.spilled").write_text("a person's text")
    with open_log(tmp_path), open_log(tmp_path):
        assert len(list((tmp_path / "history").iterdir())) == 2
    assert list((tmp_path / "history").iterdir()) == []
