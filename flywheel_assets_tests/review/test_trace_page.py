"""The page that says what became of an event: as the command does, and without a text of a person."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel_assets.capture.service import RunningCapture
from flywheel_assets.lake.landing.disk import DiskLanding
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.whatif.trace import Traced
from flywheel_assets.review.queue import Reviewed
from flywheel_assets_tests.builders import APPLICATION, make_feedback
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.review.rows import TOXIC, Reviewer, fill, service

PAGE = f"/review/{APPLICATION}/trace"


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path)
    fill(bench, make_feedback(event_id="toxic", final_text=TOXIC, user_id="mallory"))
    return bench


@pytest.fixture
def capture(bench: Workbench) -> Iterator[RunningCapture]:
    landing = DiskLanding(bench.landing)
    versions = Versions(bench.root / "versions", APPLICATION)
    traced = Traced(bench.lake, bench.tables, versions, landing, bench.landing, bench.window.longest_wait_days)
    with service(bench, application=Reviewed(bench.lake, bench.window.longest_wait_days, traced=traced)) as running:
        yield running


def test_the_page_says_what_the_command_says_and_shows_no_text(capture: RunningCapture) -> None:
    ann = Reviewer(capture.url)
    assert f"{PAGE}?id=toxic" in ann.get(f"/review/queue/{APPLICATION}/toxic").text
    page = ann.get(f"{PAGE}?id=toxic")
    assert page.status_code == 200
    for words in ("(edit) was received from app", "is complete", "was refused (toxic_language)"):
        assert words in page.text
    assert not any(words in page.text for words in (TOXIC, "mallory", "Call store"))


def test_unknown_hostile_and_endless_ids_are_answered(capture: RunningCapture) -> None:
    ann = Reviewer(capture.url)
    assert "What became of an event" in ann.get(PAGE).text
    unknown = ann.get(f"{PAGE}?id=%3Cscript%3E&source=%27%3B+DROP")
    assert unknown.status_code == 200
    assert "Nothing is known about this id" in unknown.text
    assert "<script>" not in unknown.text.replace('<script src="/review/assets/review.js" defer></script>', "")
    assert ann.get(f"{PAGE}?id={'x' * 600}").status_code == 400
    assert ann.get("/review/none/trace?id=x").status_code == 404
    ann.http.cookies.clear()
    assert ann.get(f"{PAGE}?id=toxic").status_code == 401
