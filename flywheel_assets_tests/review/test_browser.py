"""The pages in a real browser: hostile texts are only ever shown, and keys decide."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets_tests.builders import make_feedback
from flywheel_assets_tests.capture.chromium import CHROMIUM, MISSING, Chromium, Tab, eventually, running_chromium
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.review.rows import REWRITTEN, TOXIC, decided, fill, service

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

IMAGE = "<img src=x onerror=\"window.pwned='image'\">"
HOSTILE = (
    f"{IMAGE}</div></section></main><script>window.pwned='script'</script>"
    "</textarea><svg onload=\"window.pwned='svg'\">' onfocus=window.pwned=1 autofocus x=' {{ 7*7 }} {% raw %} "
    "javascript:alert(1) \u202eevil\u202c zero\u200bwidth \x00 \ufeff <!-- ]]>"
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


def sign_in(tab: Tab, name: str) -> None:
    arrive(tab, "document.querySelector('input[name=name]') !== null")
    tab.evaluate(f"document.querySelector('input[name=name]').value = {name!r}")
    tab.click("main button")
    arrive(tab, "location.pathname.startsWith('/review/queue')")


def press(tab: Tab, key: str, modifiers: int = 0) -> None:
    is_enter = {"windowsVirtualKeyCode": 13, "text": "\r"} if key == "Enter" else {}
    tab.send("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=modifiers, **is_enter)
    tab.send("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=modifiers)


def arrive(tab: Tab, condition: str) -> None:
    """Wait until a page that this holds for is complete; between two pages there is nothing to ask."""

    def is_there() -> bool:
        try:
            return bool(tab.evaluate(f"document.readyState === 'complete' && ({condition})"))
        except AssertionError as error:
            if "context" in str(error):
                return False
            raise

    eventually(is_there, condition)


def injected(tab: Tab) -> list[Any]:
    """What a successful attack would leave in the page; an open dialog would block the question itself."""
    found: list[Any] = tab.evaluate(
        "[window.pwned ?? null, document.querySelectorAll('img, svg, script:not([src])').length,"
        " document.querySelectorAll('[onerror], [onload], [onfocus]').length]"
    )
    return found


def test_the_probe_sees_an_attack_that_works(chromium: Chromium) -> None:
    with chromium.tab("about:blank") as tab:
        tab.evaluate(f"document.body.innerHTML = {IMAGE!r}")
        tab.wait_for("window.pwned === 'image'")
        assert injected(tab) == ["image", 1, 1]


@pytest.mark.long
def test_hostile_texts_are_shown_and_nothing_of_them_runs(tmp_path: Path, chromium: Chromium) -> None:
    bench = Workbench(tmp_path)
    fill(
        bench,
        make_feedback(
            event_id="hostile",
            prompt=f"prompt {HOSTILE}",
            original_output=f"One two three four five. {IMAGE}",
            final_text=HOSTILE,
            user_id=HOSTILE,
            model_version=HOSTILE,
            comment=HOSTILE,
        ),
    )
    with service(bench) as capture, chromium.tab(f"{capture.url}/review") as tab:
        sign_in(tab, IMAGE)
        assert injected(tab) == [None, 0, 0]
        assert tab.evaluate("document.querySelector('.who span').textContent") == IMAGE
        tab.click("tr[data-row] a")
        arrive(tab, "document.querySelector('textarea') !== null")
        assert injected(tab) == [None, 0, 0]
        shown = tab.evaluate("document.querySelector('.after .text').textContent")
        assert shown.startswith(IMAGE)
        assert all(name in shown for name in ("U+202E", "U+200B", "U+0000", "U+FEFF", "{{ 7*7 }}"))
        assert not any(hidden in shown for hidden in "\u202e\u200b\ufeff")
        assert tab.evaluate("document.querySelectorAll('form').length") == 3
        assert tab.evaluate("getComputedStyle(document.querySelector('.text')).unicodeBidi") == "plaintext"
        tab.click("[data-key=r]")
        arrive(tab, "location.pathname.endsWith('/assistant')")
        assert tab.evaluate("document.querySelectorAll('tr[data-row]').length") == 0
        tab.click("header nav a[href^='/review/decisions']")
        arrive(tab, "location.pathname.startsWith('/review/decisions')")
        assert tab.evaluate("document.querySelectorAll('tbody tr').length") == 1
        assert injected(tab) == [None, 0, 0]
        assert set(decided(tmp_path, capture)) == {"hostile"}


def test_the_queue_fits_a_telephone(tmp_path: Path, chromium: Chromium) -> None:
    """Five columns did not fit 400 px: what was found stood in a column of single letters, or the page moved aside."""
    bench = Workbench(tmp_path)
    fill(bench, make_feedback(event_id="toxic", final_text=TOXIC), make_feedback(event_id="a", final_text=REWRITTEN))
    with service(bench) as capture, chromium.tab(f"{capture.url}/review") as tab:
        tab.send("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
        sign_in(tab, "Ann")
        assert tab.evaluate("document.querySelectorAll('tr[data-row]').length") == 2
        assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [400, 400]
        assert (
            tab.evaluate("Math.min(...[...document.querySelectorAll('td.detail')].map((each) => each.clientWidth))")
            > 200
        )
        tab.screenshot(tmp_path / "queue.png")


@pytest.mark.long
def test_keys_choose_open_decide_and_write(tmp_path: Path, chromium: Chromium) -> None:
    bench = Workbench(tmp_path)
    fill(
        bench,
        make_feedback(event_id="toxic", final_text=TOXIC),
        make_feedback(event_id="first", final_text=REWRITTEN),
        make_feedback(event_id="second", final_text=REWRITTEN + " Bye."),
        make_feedback(event_id="third", final_text=REWRITTEN + " See you."),
    )
    with service(bench) as capture, chromium.tab(f"{capture.url}/review") as tab:
        sign_in(tab, "Ann")
        press(tab, "j")
        press(tab, "j")
        press(tab, "x")
        assert tab.evaluate("[...document.querySelectorAll('[name=row]')].map((box) => box.checked)") == [
            *(False, True),
            *(False, False),
        ]
        press(tab, "k")
        press(tab, "Enter")
        arrive(tab, "location.pathname.endsWith('/toxic')")
        assert tab.evaluate("document.querySelector('.after .evidence').textContent") == "you idiot"
        press(tab, "e")
        tab.evaluate("document.activeElement.value = ''")
        tab.type("Call it as ra")  # keys of decisions, which are letters here
        press(tab, "Enter", modifiers=2)
        arrive(tab, "!location.pathname.endsWith('/toxic')")
        rows = []
        for key in ("a", "r", "s"):
            here = tab.evaluate("location.pathname")
            rows.append(here.rsplit("/", 1)[1])
            press(tab, key)
            arrive(tab, f"location.pathname !== {here!r}")
        events = decided(tmp_path, capture)
    accepted, rejected, skipped = rows
    assert events["toxic"]["final_text"] == "Call it as ra"
    assert (events[accepted]["signal"], events[rejected]["signal"]) == ("edit", "comment")
    assert skipped not in events
