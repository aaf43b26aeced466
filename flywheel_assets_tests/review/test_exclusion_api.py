"""Exclusions over HTTP: the same decisions as on the command line, by a key of the scope `review`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.service import RunningCapture
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.exclusions import list_exclusions, list_exclusions_in_force
from flywheel_assets.records import make_event_id
from flywheel_assets_tests.builders import APPLICATION, DAY, NOON, make_gold
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.review.rows import service

PATH = f"/review/{APPLICATION}/exclusions"
AUDIT = {"who": "Ann", "reason": "a joke"}


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path)
    statement = make_event_id(APPLICATION, "import:edits.jsonl", "e1")
    named = {"prediction_id": "p", "statement_id": statement, "source": "import:edits.jsonl"}
    bench.write(CURATED_DPO_PAIRS, DAY, [make_gold(**named), make_gold(prediction_id="p"), make_gold()])
    return bench


@pytest.fixture
def capture(bench: Workbench) -> Iterator[RunningCapture]:
    with service(bench) as running:
        yield running


def post(capture: RunningCapture, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(capture.url + path, json=body, headers=headers, timeout=30)


def test_an_exclusion_is_counted_created_listed_and_ended(bench: Workbench, capture: RunningCapture) -> None:
    said = post(capture, PATH, {"prediction": "p", **AUDIT})
    assert (said.status_code, said.json()["rows_by_day"], said.json()["id"]) == (200, {str(DAY): 2}, None)
    assert list_exclusions(bench.lake) == []
    done = post(capture, PATH, {"prediction": "p", "yes": True, **AUDIT})
    assert done.status_code == 201
    [exclusion] = list_exclusions(bench.lake)
    assert (exclusion.id, exclusion.decided_by, exclusion.reason) == (done.json()["id"], "Ann", "a joke")
    [listed] = httpx.get(capture.url + PATH, timeout=30).json()["exclusions"]
    assert (listed["what"], listed["named"]) == ("one prediction", {"prediction_id": "p"})
    assert post(capture, PATH, {"import": "edits.jsonl", "event": "e1", **AUDIT}).json()["rows_by_day"] == {}

    end = f"{PATH}/{exclusion.id}/end"
    assert post(capture, end, AUDIT).json()["rows_by_day"] == {str(DAY): 2}
    assert len(list_exclusions_in_force(bench.lake)) == 1
    assert post(capture, end, {"yes": True, **AUDIT}).json()["ended_by"] == "Ann"
    assert list_exclusions_in_force(bench.lake) == []
    assert post(capture, end, {"yes": True, **AUDIT}).status_code == 404
    file = post(capture, PATH, {"import": "edits.jsonl", "event": "e1", **AUDIT}).json()
    assert (file["what"], file["rows_by_day"]) == ("one statement", {str(DAY): 1})


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (AUDIT, "would exclude everything"),
        ({"prediction": "p", "who": " ", "reason": "r"}, "`who` is a name"),
        ({"prediction": "p", "who": "Ann", "reason": ""}, "`reason` is kept"),
        ({"prediction": "p", "who": "Ann"}, "missing required field `reason`"),
        ({"predictions": "p", **AUDIT}, "unknown field `predictions`"),
        ({"from": "2026-03-02", **AUDIT}, "needs both days"),
        ({"source": "a", "import": "b", **AUDIT}, "two sources"),
    ],
)
def test_what_cannot_be_meant_is_refused(capture: RunningCapture, body: dict[str, Any], complaint: str) -> None:
    refused = post(capture, PATH, {"yes": True, **body})
    assert refused.status_code == 400
    assert complaint in refused.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example:80"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({}, 201),
    ],
)
def test_no_page_of_another_site_decides(capture: RunningCapture, headers: dict[str, str], status: int) -> None:
    """Such a page could only send what a form sends, and a browser names it."""
    assert post(capture, PATH, {"prediction": "p", "yes": True, **AUDIT}, **headers).status_code == status


def test_a_key_of_the_scope_review_is_needed_and_signs(bench: Workbench) -> None:
    path = bench.root / "keys.json"
    reviewer = create_key(path, KeyRequest(APPLICATION, "reviewers", (Scope.REVIEW,)), NOON)
    writer = create_key(path, KeyRequest(APPLICATION, "app", (Scope.WRITE,)), NOON)
    body = {"prediction": "p", "yes": True, **AUDIT}
    with service(bench, Access(KeyStore(path))) as capture:
        assert post(capture, PATH, body).status_code == 401
        assert post(capture, PATH, body, authorization=f"Bearer {writer.secret}").status_code == 403
        assert httpx.get(capture.url + PATH, timeout=30).status_code == 401
        assert post(capture, PATH, body, authorization=f"Bearer {reviewer.secret}").status_code == 201
    [exclusion] = list_exclusions(bench.lake)
    assert exclusion.decided_by == f"Ann (key {reviewer.key_id} of reviewers)"
