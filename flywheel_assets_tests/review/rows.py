"""A lake with something of everything that people review, and the service that shows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.service import RunningCapture, running_capture
from flywheel_assets.lake.landing.disk import EventKind
from flywheel_assets.review.decisions import DecisionIndex, read_decision
from flywheel_assets.review.openid import OpenIdSettings
from flywheel_assets.review.pages import build_review_pages
from flywheel_assets.review.proxy import TrustedProxy
from flywheel_assets.review.queue import Reviewed, ReviewQueue
from flywheel_assets_tests.builders import APPLICATION, DAY, NOON, day, make_feedback
from flywheel_assets_tests.capture.samples import Clock, landed
from flywheel_assets_tests.lake.workbench import Workbench

TOMORROW = NOON + timedelta(days=1)
REWRITTEN = "Dear customer, your parcel was lost; a voucher is on its way."
TOXIC = "Call store.read('x', default=0), you idiot: it never returns None."
TOKEN = "ghp_a1B2c3D4e5F6g7H8i9J0kLmNoPqRsTuVwXyZ"


def make_thumb(prediction: dict[str, Any], **more: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("prompt", "prompt_format", "original_output", "final_text"))
    about = {"prediction_id": prediction["prediction_id"], "signal": "thumb", "value": -1.0}
    return make_feedback(**{**texts, **about, **more})


def fill(bench: Workbench, *feedback: dict[str, Any], predictions: tuple[dict[str, Any], ...] = ()) -> None:
    """Land everything on the builders' day and materialize it."""
    bench.land(EventKind.PREDICTION, DAY, predictions)
    bench.land(EventKind.FEEDBACK, DAY, feedback)
    for step in (bench.ingest_both, bench.join, bench.curate):
        step([DAY])


def materialize_tomorrow(bench: Workbench) -> None:
    for step in (bench.ingest_both, bench.join, bench.curate):
        step([day(1)])


def reviewed(bench: Workbench) -> Reviewed:
    return Reviewed(bench.lake, bench.window.join_days)


def queue_of(bench: Workbench) -> ReviewQueue:
    """A queue that looks at the lake every time."""
    ticks = iter(range(0, 10_000, 100))
    return ReviewQueue(
        reviewed(bench), DecisionIndex(bench.root / "review" / f"{APPLICATION}.jsonl"), lambda: next(ticks)
    )


@contextmanager
def service(
    bench: Workbench,
    access: Access | None = None,
    application: Reviewed | None = None,
    proxy: TrustedProxy | None = None,
    openid: OpenIdSettings | None = None,
) -> Iterator[RunningCapture]:
    """Capture with the review pages of one application, on the day after."""
    application = application or reviewed(bench)
    clock = Clock(TOMORROW)
    index_dir = bench.root / "review"
    pages = partial(
        build_review_pages, reviewed=[application], index_dir=index_dir, clock=clock, proxy=proxy, openid=openid
    )
    contracts = {application.name: application.contract}
    with running_capture(bench.landing, contracts, clock, access=access, pages=pages) as running:
        yield running


class Reviewer:
    """A person's browser without JavaScript: follows links and sends the forms that it was shown."""

    def __init__(self, url: str, name: str = "Ann", key: str = "") -> None:
        self.http = httpx.Client(
            base_url=url,
            timeout=30,
            headers={"sec-fetch-site": "same-origin", "origin": url},
            # No connection is left open that nobody closes.
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self.page = self.http.post("/review/sign-in", data={"name": name, "key": key})

    @property
    def token(self) -> str:
        """What the forms of this session's pages hold."""
        return self.get(f"/review/queue/{APPLICATION}").text.split('name="token" value="')[1].split('"')[0]

    def get(self, path: str) -> httpx.Response:
        return self.http.get(path)

    def decide(self, row_id: str, do: str, **fields: str) -> httpx.Response:
        data = {"token": self.token, "do": do, **fields}
        return self.http.post(f"/review/queue/{APPLICATION}/{row_id}", data=data)


def decided(root: Path, running: RunningCapture) -> dict[str, dict[str, Any]]:
    """The landed decisions by the row that they are about."""
    running.seal()
    rows = landed(root / "landing", "feedback")
    return {decision.row_id: row for row in rows if (decision := read_decision(row.get("comment"))) is not None}
