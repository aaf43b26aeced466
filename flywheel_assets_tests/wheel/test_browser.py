"""The page in a real browser: it brings new numbers by itself, and leaves the reader where they were."""

from pathlib import Path

import pytest

from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.capture.chromium import CHROMIUM, MISSING, Tab, eventually, running_chromium
from flywheel_assets_tests.wheel.homes import ASSISTANT, decide, grow_days, noon_after
from flywheel_assets_tests.wheel.test_pages import looking

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)


def holds(tab: Tab, condition: str) -> None:
    """Wait until the condition holds; while a page loads there is nothing to ask."""

    def is_there() -> bool:
        try:
            return bool(tab.evaluate(f"document.readyState === 'complete' && ({condition})"))
        except AssertionError as error:
            if "context" in str(error):
                return False
            raise

    eventually(is_there, condition)


@pytest.mark.long
def test_new_numbers_come_by_themselves_and_focus_and_tables_stay(tmp_path: Path) -> None:
    stores = Stores(isolate_settings(tmp_path))
    grow_days(stores, 0, 3)
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    with (
        looking(stores, [ASSISTANT], lambda: noon_after(3)) as client,
        running_chromium(tmp_path / "chromium") as chromium,
        chromium.tab(f"{client.base_url}/wheel/assistant") as tab,
    ):
        holds(tab, "document.querySelectorAll('details').length > 1")
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        tab.evaluate("document.querySelector('details').open = true")
        tab.evaluate("document.querySelector('summary').focus()")
        decide(stores, "dpo_gold_v1", promoted=True)
        tab.evaluate(look)
        holds(tab, "document.body.innerText.includes('dpo_gold_v1')")
        assert tab.evaluate("document.querySelector('details').open")
        assert tab.evaluate("document.activeElement === document.querySelector('summary')")

        # A person who is writing is not disturbed, and one who has stopped the refresh neither.
        tab.evaluate("document.querySelector('#trace-id').focus()")
        tab.type("abc")
        decide(stores, "dpo_gold_v2", promoted=False)
        tab.evaluate(f"{look}; fetch('/wheel-state')")
        assert tab.evaluate("document.querySelector('#trace-id').value") == "abc"
        tab.click("#refresh")
        tab.evaluate(f"{look}; fetch('/wheel-state')")
        assert "dpo_gold_v2" not in tab.evaluate("document.body.innerText")
        tab.click("#refresh")
        tab.evaluate(look)
        holds(tab, "document.body.innerText.includes('dpo_gold_v2')")
        assert tab.evaluate("document.querySelector('#trace-id').value") == "abc"
