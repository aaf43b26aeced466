"""Lines go out of segments on a disk whenever those arrive, and whatever capture does at the same moment."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flywheel_assets.errors import OpenSegmentError
from flywheel_assets.lake.erasure.landing import ErasableLanding, erase_lines
from flywheel_assets.lake.landing.disk import EventKind, LandingZone
from flywheel_assets_tests.builders import APPLICATION, DAY
from flywheel_assets_tests.lake.workbench import LONG_AFTER


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path, APPLICATION, EventKind.FEEDBACK)


def publish(zone: LandingZone, name: str, *lines: str) -> Path:
    zone.open_folder.mkdir(parents=True, exist_ok=True)
    path = zone.open_folder / f"{name}.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return zone.publish(path, DAY)


def is_gone(line: bytes) -> bool:
    return b"mallory" in line


def clock() -> datetime:
    return LONG_AFTER + timedelta(hours=6)


def test_a_segment_that_is_late_for_its_closed_day_loses_its_lines_too(zone: LandingZone, tmp_path: Path) -> None:
    publish(zone, "a", "mallory", "ada")
    zone.read(DAY, LONG_AFTER)
    late = publish(zone, "late", "mallory", "bob")
    done = erase_lines(zone, is_gone, "erasure1", clock, tmp_path / "scratch")
    assert (done.lines_per_day, done.segments) == ({DAY: 2}, 2)
    assert late.read_text() == "bob\n"
    assert [path.name for path in zone.read(DAY, clock()).paths] == ["a.jsonl"]
    assert [path.read_text() for path in zone.read(clock().date(), clock()).paths] == ["bob\n"]


def test_a_segment_that_is_sealed_while_open_ones_are_looked_at_stops_nothing(
    zone: LandingZone, tmp_path: Path
) -> None:
    landing = ErasableLanding(APPLICATION, tmp_path, tmp_path / "scratch")
    zone.open_folder.mkdir(parents=True)
    # Listed, and gone when it is opened: what a listing that was overtaken by a rename looks like.
    (zone.open_folder / "a.jsonl").symlink_to(zone.find_day_folder(DAY) / "a.jsonl.moved")
    landing.refuse_open_segments(is_gone)
    (zone.open_folder / "b.jsonl").write_text("mallory\n")
    with pytest.raises(OpenSegmentError, match=r"b\.jsonl"):
        landing.refuse_open_segments(is_gone)
