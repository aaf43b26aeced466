"""A person's rows go while others write the same days, and nothing of the others is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.errors import PartitionChangedError
from flywheel_assets.lake.erasure import person as erased_rows
from flywheel_assets.lake.erasure.person import PersonKeys, erase_head_rows, find_rows
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.lake.tables.specs import GROUND_TRUTH, QUARANTINE
from flywheel_assets_tests.builders import DAY, make_feedback
from flywheel_assets_tests.lake.workbench import Workbench, stamp

PERSON = PersonKeys("mallory", frozenset(), frozenset(), frozenset())
ROWS = [make_feedback(event_id=user, user_id=user) for user in ("mallory", "ada", "bob")]


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path)
    bench.land(EventKind.FEEDBACK, DAY, ROWS[:2], "first")
    bench.ingest(EventKind.FEEDBACK, [DAY])
    return bench


def beside(monkeypatch: pytest.MonkeyPatch, write: Callable[[], object]) -> None:
    """Let something be written each time the erasure has read a day and not yet written it."""
    read = erased_rows.write_kept_rows

    def read_and_wait(*arguments: Any) -> Path | None:
        kept = read(*arguments)
        write()
        return kept

    monkeypatch.setattr(erased_rows, "write_kept_rows", read_and_wait)


def erase(bench: Workbench) -> int:
    return erase_head_rows(bench.lake, GROUND_TRUTH, PERSON, stamp(), lambda *_: None)


def users(bench: Workbench) -> list[str]:
    return sorted(row["user_id"] for row in bench.rows(GROUND_TRUTH))


def test_what_a_run_wrote_since_the_day_was_read_stays(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([ROWS])

    def write_once() -> None:
        for rows in runs:
            bench.write(GROUND_TRUTH, DAY, [{**row, "received_date": DAY} for row in rows])

    beside(monkeypatch, write_once)
    assert erase(bench) == 1
    assert users(bench) == ["ada", "bob"]
    assert list((bench.root / "scratch" / "building").iterdir()) == []


def test_a_run_that_keeps_writing_the_person_is_told(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch, lambda: bench.ingest(EventKind.FEEDBACK, [DAY]))
    with pytest.raises(PartitionChangedError, match="let it end, then repeat"):
        erase(bench)
    assert users(bench) == ["ada", "mallory"]
    monkeypatch.undo()
    assert erase(bench) == 1
    assert find_rows(bench.lake, GROUND_TRUTH, PERSON) == {}


@pytest.mark.parametrize("written", ["müller", "m\\u00fcller", "m\\u00FCller"])
def test_a_quarantined_line_goes_however_it_writes_the_name(tmp_path: Path, written: str) -> None:
    """Landing knew an escaped name in a malformed line; the copy of that line in quarantine kept it."""
    bench = Workbench(tmp_path)
    lines = [f'{{"event_id": 7, "user_id": "{user}"}}' for user in (written, "ada")]
    bench.land(EventKind.FEEDBACK, DAY, [line.encode() for line in lines])
    bench.ingest(EventKind.FEEDBACK, [DAY])
    person = PersonKeys("müller", frozenset(), frozenset(), frozenset())
    assert erase_head_rows(bench.lake, QUARANTINE, person, stamp(), lambda *_: None) == 1
    assert [row["payload"] for row in bench.rows(QUARANTINE)] == [lines[1]]
