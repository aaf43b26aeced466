"""flywheel.js in a real browser, on the example's page: what a person does there is in the landing zone afterwards."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, create_key
from flywheel_assets.capture.service import RunningCapture, running_capture
from flywheel_assets.curation.logging_sample import compute_sampling_position
from flywheel_assets_tests.capture.chromium import CHROMIUM, MISSING, Chromium, Tab, eventually, running_chromium
from flywheel_assets_tests.capture.samples import NOON, landed

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "reply_desk.py"
FIRST_DRAFT = "Your order is delayed. Please wait."


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with running_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


class Desk:
    """The example product beside a capture service of its own, and what landed of it."""

    def __init__(self, url: str, capture: RunningCapture, root: Path, browser: Chromium) -> None:
        self.url = url
        self.capture = capture
        self.root = root
        self.browser = browser

    @contextmanager
    def visit(self) -> Iterator[Tab]:
        """The page in a tab of its own, which is closed in the end."""
        with self.browser.tab(self.url) as tab:
            tab.wait_for("document.body?.dataset.ready === 'yes'")
            yield tab

    def feedback(self, at_least: int) -> list[dict[str, Any]]:
        def rows() -> list[dict[str, Any]] | None:
            self.capture.seal()
            found = landed(self.root, "feedback")
            return found if len(found) >= at_least else None

        found: list[dict[str, Any]] = eventually(rows, f"the landing of {at_least} feedback events")
        return found


@contextmanager
def example_process(capture_url: str, *options: str) -> Iterator[str]:
    """The example product; gives its address."""
    command = [sys.executable, str(EXAMPLE), "--port", "0", "--capture", capture_url, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture
def desk(tmp_path: Path, chromium: Chromium) -> Iterator[Desk]:
    with running_capture(tmp_path, ["assistant"]) as capture, example_process(capture.url) as url:
        yield Desk(url, capture, tmp_path, chromium)


def test_type_copy_regenerate_close_and_everything_is_there(desk: Desk) -> None:
    with desk.visit() as tab:
        first_draft = tab.evaluate("find('#draft').value")
        tab.focus_at_end("#draft")
        tab.type(" Sorry!")
        tab.select_all_and_copy()
        tab.click("#regenerate")
        second_draft = tab.wait_for(f"find('#draft').value !== {first_draft + ' Sorry!'!r} && find('#draft').value")
        tab.focus_at_end("#draft")
        tab.type(" Yours, Bob")
        tab.focus_at_end("#note")
        tab.type(" (noted)")

    edits = {row["final_text"]: row for row in desk.feedback(4) if row["signal"] == "edit"}
    assert set(edits) > {f"{first_draft} Sorry!", f"{second_draft} Yours, Bob"}
    [note] = [text for text in edits if text.endswith(" (noted)")]
    regenerated = edits[f"{first_draft} Sorry!"]
    assert regenerated["original_output"] == first_draft
    assert regenerated["prompt"].startswith("Where is my order?")
    assert regenerated["model_version"] == "canned-1"
    assert regenerated["source"] == "reply-desk"
    assert len({row["thread_id"] for row in edits.values()}) == 3
    assert note != "(noted)"
    # The copy came after an edit: it says nothing about the model's text. The regeneration always counts.
    others = [row for row in desk.feedback(4) if row["signal"] != "edit"]
    assert [row["signal"] for row in others] == ["regenerate"]
    assert others[0]["prediction_id"] == regenerated["prediction_id"]
    [prediction] = landed(desk.root, "prediction")
    assert (prediction["prediction_id"], prediction["output"]) == (regenerated["prediction_id"], first_draft)


def test_an_edit_survives_a_tab_that_is_closed_before_it_ever_sent_anything(desk: Desk) -> None:
    """The browser must even ask capture's leave to send (CORS) after the page is gone."""
    with desk.visit() as tab:
        tab.focus_at_end("#draft")
        tab.type("!")
        assert tab.evaluate("flywheel.counts.accepted") == 0
    [row] = desk.feedback(1)
    assert (row["signal"], row["final_text"][-1]) == ("edit", "!")


def test_what_was_only_read_leaves_nothing_and_approval_is_sampled(desk: Desk) -> None:
    with desk.visit() as tab:
        watch = "window.w = flywheel.watch(find('#draft'), {{ prompt: 'p', predictionId: {!r} }})"
        in_sample = next(f"p-{n}" for n in range(10_000) if compute_sampling_position(f"p-{n}") < 0.01)
        left_out = next(f"p-{n}" for n in range(10_000) if compute_sampling_position(f"p-{n}") >= 0.01)
        for prediction_id in (left_out, in_sample):
            tab.evaluate(watch.format(prediction_id))
            tab.evaluate("find('#draft').focus()")
            tab.select_all_and_copy()
            tab.click("[data-flywheel=up]")
        tab.evaluate(watch.format("only-read"))
        tab.evaluate("w.end()")
        assert tab.wait_for("flywheel.counts.accepted") == 3
        assert tab.evaluate("[flywheel.counts.sampledOut, flywheel.counts.onlyRead]") == [
            1,
            2,
        ]  # the first draft as well

    rows = desk.feedback(2)
    assert {(row["prediction_id"], row["signal"]) for row in rows} == {(in_sample, "copy"), (in_sample, "thumb")}
    assert {row["sampling_probability"] for row in rows} == {0.01}
    assert [row["prediction_id"] for row in landed(desk.root, "prediction")] == [in_sample]


def test_stars_and_a_form_are_signals_and_a_text_the_page_writes_is_no_edit(desk: Desk) -> None:
    with desk.visit() as tab:
        tab.evaluate("window.w = flywheel.watch(find('#draft'), { prompt: 'p', predictionId: 'low', userId: 'ada' })")
        tab.evaluate("find('#draft').value = 'the page itself wrote this'")
        tab.evaluate(
            "(() => { const s = find('[data-flywheel=rating]'); s.value = '2';"
            " s.dispatchEvent(new Event('change', { bubbles: true })); })()"
        )
        tab.evaluate("find('[name=final_text]').value")
        tab.evaluate(
            "flywheel.watch(find('[name=final_text]'), { prompt: 'p', predictionId: 'sent', positiveShare: 1 })"
        )
        tab.evaluate("flywheel.configure({ positiveShare: 1 })")
        tab.click("form button")
        tab.wait_for("find('#sent').textContent === 'sent'")

    rows = {row["prediction_id"]: row for row in desk.feedback(2)}
    assert (rows["low"]["signal"], rows["low"]["value"], rows["low"]["user_id"]) == ("rating", 0.4, "ada")
    assert rows["sent"]["signal"] == "accept"


def test_a_page_keeps_what_capture_did_not_take_and_counts_what_it_refused(desk: Desk) -> None:
    with desk.visit() as tab:
        good = tab.evaluate("flywheel.configure({}).url")
        tab.evaluate("flywheel.configure({ url: 'http://127.0.0.1:1/' })")
        tab.evaluate("window.w = flywheel.watch(find('#draft'), { prompt: 'p', predictionId: 'kept' })")
        tab.evaluate("w.edited('changed'); w.end()")
        tab.evaluate(f"flywheel.configure({{ url: {good!r} }})")
        assert tab.wait_for("flywheel.counts.accepted") == 1
        tab.evaluate("window.w = flywheel.watch(find('#draft'), { prompt: 7, predictionId: 'bad' })")
        tab.evaluate("w.edited('changed'); w.end()")
        assert tab.wait_for("flywheel.counts.refused") == 1
    assert [row["prediction_id"] for row in desk.feedback(1)] == ["kept"]


def test_the_server_of_the_example_tells_what_its_person_sent(desk: Desk) -> None:
    with desk.visit() as tab:
        draft = tab.evaluate("find('[name=final_text]').value")
        tab.focus_at_end("[name=final_text]")
        tab.type(" Bye")
        tab.click("form button")
        tab.wait_for("find('#sent').textContent === 'sent'")
    [row] = desk.feedback(1)
    assert (row["signal"], row["source"]) == ("edit", "reply-desk-server")
    assert (row["original_output"], row["final_text"]) == (draft, f"{draft} Bye")


def test_a_page_that_watches_nothing_goes_on(desk: Desk) -> None:
    with desk.visit() as tab:
        tab.evaluate("flywheel.watch(document.querySelector('#nothing')).end()")
        assert tab.evaluate("flywheel.counts.onlyRead") == 1


def test_lone_surrogates_and_emoji_arrive_as_text(desk: Desk) -> None:
    with desk.visit() as tab:
        tab.evaluate("window.w = flywheel.watch(find('#draft'), { prompt: 'p', predictionId: 'emoji' })")
        tab.evaluate(r"w.edited('🙂\ud800'); w.end()")
        assert tab.wait_for("flywheel.counts.accepted") == 1
    assert desk.feedback(1)[0]["final_text"] == "🙂\ufffd"


def test_with_a_browser_key_only_pages_of_its_origin_are_heard(tmp_path: Path, chromium: Chromium) -> None:
    """The key must be in the address: a beacon of a closing tab carries no headers."""
    keys = tmp_path / "keys.json"
    create_key(keys, KeyRequest("assistant", "nobody's page", origins=["https://elsewhere.example"]), NOON)
    access = Access(KeyStore(keys))
    with (
        running_capture(tmp_path / "landing", ["assistant"], access=access) as capture,
        example_process(capture.url) as url,
    ):
        key = create_key(keys, KeyRequest("assistant", "the desk's page", origins=[url]), NOON).secret
        desk = Desk(url, capture, tmp_path / "landing", chromium)
        eventually(lambda: _may_send(capture.url, url, key), "the service's notice of the new key")
        for configured in ("fwk_unknown", key):
            with desk.visit() as tab:
                tab.evaluate(f"flywheel.configure({{ key: {configured!r} }})")
                tab.focus_at_end("#draft")
                tab.type(" with its key" if configured == key else " without one")
        [row] = desk.feedback(1)
    assert row["final_text"].endswith(" with its key")


def _may_send(capture_url: str, origin: str, key: str) -> bool:
    answer = httpx.post(f"{capture_url}/v1/assistant/events?key={key}", headers={"origin": origin}, content=b"")
    return answer.status_code != 401


def test_both_clients_draw_the_same_sample(desk: Desk) -> None:
    """The script holds the hash in its own words: without this, a prediction could be kept here and left out there."""
    with desk.visit() as tab:
        source = httpx.get(f"{desk.capture.url}/flywheel.js").text
        function = source[source.index("function position") : source.index("// crypto.randomUUID")]
        ids = ["", "p-1", "Übung-🙂", *(f"prediction-{n}" for n in range(300))]
        tab.evaluate(function + "; window.position = position")
        assert tab.evaluate(f"{json.dumps(ids)}.map(position)") == [compute_sampling_position(name) for name in ids]


def test_the_script_is_small_and_cached(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"]) as capture:
        script = httpx.get(f"{capture.url}/flywheel.js")
        again = httpx.get(f"{capture.url}/flywheel.js", headers={"if-none-match": script.headers["etag"]})
    assert len(script.content) < 8192
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (again.status_code, again.content) == (304, b"")
