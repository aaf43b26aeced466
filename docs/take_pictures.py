"""Take the documentation's pictures of pages again: the wheel, the review and Dagster's views.

    python docs/take_pictures.py [--home .flywheel-demo] [--fraud-home .flywheel-demo-fraud]

The pages of the wheel and of the review show flywheels that the tests grow, so that the pictures are the same every
time. Dagster's views show what `flywheel demo` and `flywheel demo -a fraud` left; the demos' own plots are copied from
there. Needs Chromium.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402

from flywheel_assets.settings import isolate_settings  # noqa: E402
from flywheel_assets.stores import Stores  # noqa: E402
from flywheel_assets_tests.builders import make_feedback  # noqa: E402
from flywheel_assets_tests.capture.chromium import Chromium, Tab, running_chromium  # noqa: E402
from flywheel_assets_tests.lake.workbench import Workbench  # noqa: E402
from flywheel_assets_tests.review.rows import REWRITTEN, TOXIC, fill, service  # noqa: E402
from flywheel_assets_tests.wheel.homes import ASSISTANT, decide, grow_days, grow_year, noon_after  # noqa: E402
from flywheel_assets_tests.wheel.test_pages import looking  # noqa: E402

DOCS = ROOT / "docs"
_START_S, _VIEW_S = 180.0, 60.0
# Path in Dagster's UI, what its page says once it is complete, and the picture's height.
VIEWS = {
    "lineage": ("/asset-groups", "assistant_version", 760),
    "evaluation": ("/assets/assistant/adapter_evaluation", "comparison", 1100),
    "promotion": ("/assets/assistant/promotion", "decision", 1000),
    "gold_checks": ("/assets/assistant/curated_dpo_pairs?view=checks", "Execut", 760),
    "automation": ("/automation?expanded=true", "training_threshold_sensor", 760),
}


def take(chromium: Chromium, address: str, picture: Path, width: int, height: int, until: str) -> None:
    """Open a page in a window of this size, wait for what it must say, and write what it shows.

    Raises:
        TimeoutError: the page does not say it.
    """
    with chromium.tab("about:blank") as tab:
        tab.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        tab.send("Emulation.setScrollbarsHidden", hidden=True)
        tab.send("Page.navigate", url=address)
        _wait_for(tab, f"document.body.innerText.includes({until!r})", address)
        tab.screenshot(picture)
    print(f"{picture.relative_to(ROOT)}  {width} × {height}", flush=True)


def _wait_for(tab: Tab, condition: str, address: str) -> None:
    deadline = time.monotonic() + _VIEW_S
    while not _is_true(tab, f"document.readyState === 'complete' && {condition}"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"at {address} this did not hold within {_VIEW_S:.0f} s: {condition}")
        time.sleep(0.2)
    # Charts and fonts are drawn after the text is there.
    time.sleep(1.5)


def _is_true(tab: Tab, condition: str) -> bool:
    try:
        return bool(tab.evaluate(condition))
    except AssertionError:
        # Between two pages there is nothing to ask.
        return False


def take_wheel(chromium: Chromium, folder: Path) -> None:
    """Take the page of a flywheel of three weeks, wide and narrow, and of one that is a year old."""
    young = Stores(isolate_settings(folder / "young"))
    grow_days(young, 0, 21)
    decide(young, "dpo_gold_v1", promoted=True)
    with looking(young, [ASSISTANT], lambda: noon_after(21)) as client:
        page = f"{client.base_url}/wheel/assistant"
        take(chromium, page, DOCS / "wheel_page.png", 1160, 1400, "dpo_gold_v1")
        take(chromium, page, DOCS / "wheel_page_narrow.png", 400, 1340, "dpo_gold_v1")
    old = Stores(isolate_settings(folder / "old"))
    grow_year(old)
    with looking(old, [ASSISTANT], lambda: noon_after(365)) as client:
        take(chromium, f"{client.base_url}/wheel/assistant", DOCS / "wheel_page_year.png", 1160, 1860, "dpo_gold_v25")


def take_review(chromium: Chromium, folder: Path) -> None:
    """Take one item of the review: what the model wrote, what a person made of it, what a check found."""
    bench = Workbench(folder / "review")
    fill(bench, make_feedback(final_text=REWRITTEN), make_feedback(final_text=TOXIC))
    with service(bench) as running, chromium.tab(f"{running.url}/review") as tab:
        size = {"width": 1180, "height": 960, "deviceScaleFactor": 1, "mobile": False}
        tab.send("Emulation.setDeviceMetricsOverride", **size)
        _wait_for(tab, "document.querySelector('input[name=name]') !== null", running.url)
        tab.evaluate("document.querySelector('input[name=name]').value = 'ada'")
        tab.click("main button")
        _wait_for(tab, "document.querySelector('tr[data-row] a') !== null", running.url)
        tab.click("tr[data-row] a")
        _wait_for(tab, "document.querySelector('textarea') !== null", running.url)
        tab.screenshot(DOCS / "review.png")
    print("docs/review.png  1180 × 960", flush=True)


@contextmanager
def running_dev(home: Path) -> Iterator[str]:
    """Run `flywheel dev` on a home; yield the address of Dagster's UI once all answer.

    Raises:
        TimeoutError: it does not say ready.
    """
    dagster, mlflow = _find_free_port(), _find_free_port()
    environment = {**os.environ, "FLYWHEEL_HOME": str(home), "FLYWHEEL_CAPTURE_PORT": str(_find_free_port())}
    command = [sys.executable, "-m", "flywheel_assets.cli", "dev"]
    command += ["--webserver-port", str(dagster), "--mlflow-port", str(mlflow)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + _START_S
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() == "ready":
                    break
                if time.monotonic() > deadline:
                    raise TimeoutError(f"flywheel dev on {home} is not ready after {_START_S:.0f} s")
            httpx.get(f"http://127.0.0.1:{dagster}/server_info", timeout=_START_S).raise_for_status()
            yield f"http://127.0.0.1:{dagster}"
        finally:
            process.terminate()


def _find_free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def take_dagster(chromium: Chromium, home: Path) -> None:
    """Take Dagster's five views of what the demo left."""
    with running_dev(home) as address:
        for name, (path, until, height) in VIEWS.items():
            take(chromium, address + path, DOCS / f"{name}.png", 1500, height, until)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".flywheel-demo", help="what `flywheel demo` left")
    parser.add_argument("--fraud-home", type=Path, default=ROOT / ".flywheel-demo-fraud", help="likewise, of fraud")
    parser.add_argument("--only", choices=["wheel", "review", "dagster"], help="the pictures of this part alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, running_chromium(Path(scratch) / "profile") as chromium:
        folder = Path(scratch)
        parts = {
            "wheel": lambda: take_wheel(chromium, folder),
            "review": lambda: take_review(chromium, folder),
            "dagster": lambda: take_dagster(chromium, arguments.home.resolve()),
        }
        for name, take_part in parts.items():
            if arguments.only in (None, name):
                take_part()
    if arguments.only is None:
        for home, picture in ((arguments.home, "demo.png"), (arguments.fraud_home, "demo-fraud.png")):
            shutil.copyfile(next(home.rglob(picture)), DOCS / picture)


if __name__ == "__main__":
    main()
