"""One module turns the settings into stores, and the rooms that read them get what it opened."""

import ast
from pathlib import Path

import pytest

import flywheel_assets
from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.cli.serving import open_reviewed_rows
from flywheel_assets.defs import resources
from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets.review.decisions import DecisionIndex
from flywheel_assets.review.queue import ReviewQueue
from flywheel_assets.settings import Settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import make_feedback
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.review.rows import REWRITTEN, TOMORROW, fill
from flywheel_assets_tests.s3_server import s3_server

ROOT = Path(flywheel_assets.__file__).parent
OPENED = ("Lake", "Versions", "ModelRegistry", "ObjectLanding", "make_s3_client", "boto3")
BESIDES = {
    # Each speaks to S3 or SQS for a room that is given its address: none reads a setting.
    "boto3": ("lake/storage/", "lake/landing/", "capture/brokers/_sqs.py"),
    "make_s3_client": ("lake/",),
    "ObjectLanding": ("lake/landing/",),
}


@pytest.mark.long
def test_reviews_of_a_warehouse_on_an_s3_server_read_its_rows(tmp_path: Path) -> None:
    """`flywheel capture` opened the reviews' lake by hand, without FLYWHEEL_S3_ENDPOINT: with a MinIO it asked AWS."""
    with s3_server() as server:
        where = Settings(
            home=tmp_path / "home",
            warehouse=f"s3://{server.bucket}/warehouse",
            s3_endpoint=server.endpoint,
            erasure_key="of all machines",
        )
        bench = Workbench(tmp_path / "bench")
        bench.lake = Stores(where).lake(APPLICATION.name)
        fill(bench, make_feedback(event_id="waits", final_text=REWRITTEN))
        reviewed = open_reviewed_rows(APPLICATION, Stores(where))
        queue = ReviewQueue(reviewed, DecisionIndex(Stores(where).review_index(APPLICATION.name)))
        assert [item.row_id for item in queue.list_waiting(TOMORROW.date())] == ["waits"]
    assert reviewed.lake.erasure_key == "of all machines"


def test_dagsters_resource_opens_what_the_settings_say_but_for_its_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_S3_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("FLYWHEEL_LANDING_S3", "s3://bucket/landing")
    wrapped, plain = resources.Stores(home=str(tmp_path)), Stores(Settings(home=tmp_path))
    assert isinstance(wrapped, Stores)
    assert wrapped.lake("assistant") == plain.lake("assistant")
    assert wrapped.versions("assistant") == plain.versions("assistant")
    assert wrapped.registry("assistant") == plain.registry("assistant")
    assert wrapped.lake("assistant").storage == {"s3.endpoint": "http://127.0.0.1:1"}
    assert isinstance(wrapped.landing(), ObjectLanding)
    shipping = wrapped.shipping()
    assert shipping is not None
    assert (shipping.bucket, shipping.client.meta.endpoint_url) == ("bucket", "http://127.0.0.1:1")


@pytest.mark.long
def test_nothing_else_opens_a_store() -> None:
    """A second hand would forget a setting sooner or later."""
    by_hand = {
        f"{name}: {used}"
        for path in ROOT.rglob("*.py")
        if (name := path.relative_to(ROOT).as_posix()) != "stores.py"
        for used in _opened_in(path)
        if not name.startswith(BESIDES.get(used, ()))
    }
    assert by_hand == set(), "take it from flywheel_assets.stores"


def _opened_in(path: Path) -> set[str]:
    """Names of `OPENED` that a module calls, for instance as `ObjectLanding.from_uri(…)`, or imports as a package."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            used |= {called.id} if isinstance(called, ast.Name) else set()
        elif isinstance(node, ast.Import):
            used |= {each.name.partition(".")[0] for each in node.names}
    return used & set(OPENED)
