"""The page of the wheel of a year-old flywheel costs under a second of CPU, and little while no number changed.

Claim: with 365 closed days, 26 versions and daily reports of two model versions, the first page takes about 1 s of CPU,
one that finds nothing changed less than 50 ms, and one after a day was materialized again less than 1 s.
Data: 365 days of about 40 gold rows each, four assets in the ledger, a version cut every 14 days; SQLite catalog on a
local disk. Memory: what the process holds more after the pages than after its imports.
Peer, in the same run: the trigger's rule alone, which is the part that may read rows.
Command: python -m benchmarks.wheel_page [days, 365 by default]
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from starlette.testclient import TestClient

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.capture.service import create_app
from flywheel_assets.review.sessions import Sessions
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets.wheel.pages import Links, build_wheel_pages
from flywheel_assets.wheel.reading import Prices, WheelReader
from flywheel_assets_tests.wheel.homes import ASSISTANT, grow_days, grow_year, noon_after


def took(call: Callable[[], object]) -> str:
    """Run once; CPU and wall time."""
    begin, cpu = time.perf_counter(), time.process_time()
    call()
    return f"{1000 * (time.process_time() - cpu):6.0f} ms CPU, {1000 * (time.perf_counter() - begin):6.0f} ms"


def main() -> None:
    """Print what each kind of page takes."""
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 365
    with tempfile.TemporaryDirectory() as home:
        stores = Stores(isolate_settings(Path(home)))
        print("growing the flywheel:", took(lambda: grow_year(stores, days)))
        ticks = iter(range(0, 10_000, 100))
        now = [noon_after(days)]
        reader = WheelReader(ASSISTANT, stores, lambda: next(ticks))
        access = Access()
        sessions = Sessions(access, ["assistant"], lambda: now[0])
        prices = Prices.from_settings(stores.where)
        routes = build_wheel_pages(access, sessions, [reader], {}, Links(), prices, lambda: now[0])
        app = create_app(SegmentLog(stores.landing_folder()), ["assistant"], access=access, pages=lambda *_: routes)
        client = TestClient(app, base_url="http://localhost")

        def look() -> None:
            assert client.get("/wheel/assistant").status_code == 200

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("first page:          ", took(look))
        print("nothing changed:     ", took(look))
        print("asked for the state: ", took(lambda: client.get("/wheel-state")))
        grow_days(stores, days - 1, days, 30)
        print("a day again, equal:  ", took(look))
        grow_days(stores, days, days + 1, 30)
        now[0] += timedelta(days=1)
        print("a day more:          ", took(look))
        print(
            "the rule alone:      ", took(lambda: reader._rule.assess(stores, reader._lake, reader._versions, now[0]))
        )
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kib = len(client.get("/wheel/assistant").content) / 1024
        print(f"the page: {kib:.0f} KiB; memory +{(after - before) / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
