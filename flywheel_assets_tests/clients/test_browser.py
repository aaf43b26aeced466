"""flywheel.js in a real browser, on the example's page: what a person does there is in the landing zone afterwards."""

import gzip
import json
import re
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
from flywheel_assets_tests.capture.chromium import CHROMIUM, MISSING, Chromium, Tab, eventually, running_chromium
from flywheel_assets_tests.capture.samples import NOON, landed
from flywheel_client import sampling_position

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "reply_desk.py"
TYPES = ROOT / "clients" / "browser" / "flywheel.d.ts"
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
    # The copy came after an edit: it says nothing about the model's text. The regeneration always counts; once the
    # second draft is there, its next revision names it.
    others = [row for row in desk.feedback(5) if row["signal"] != "edit"]
    assert [(row["signal"], row["revision"]) for row in others] == [("regenerate", 1), ("regenerate", 2)]
    assert {row["prediction_id"] for row in others} == {regenerated["prediction_id"]}
    second = edits[f"{second_draft} Yours, Bob"]
    assert (others[1]["sibling_id"], others[1]["final_text"]) == (second["prediction_id"], second_draft)
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
        in_sample = next(f"p-{n}" for n in range(10_000) if sampling_position(f"p-{n}") < 0.01)
        left_out = next(f"p-{n}" for n in range(10_000) if sampling_position(f"p-{n}") >= 0.01)
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


@pytest.mark.long
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


def recorded(tab: Tab, use: str) -> list[Any]:
    """What the script sends while the page does this, as (kind or signal, data) with the event's id in it."""
    tab.evaluate(
        "window.sent = []; window.fetch = async (_, { body }) => { const events = JSON.parse(await body.text());"
        " sent.push(...events); return new Response(JSON.stringify({ accepted: events.length }), { status: 202 }); }"
    )
    before = tab.evaluate("flywheel.counts.accepted")
    tab.evaluate(f"(() => {{ {use} }})()")
    tab.evaluate("flywheel.watch(document.createElement('p'), { predictionId: 'the-end' }).signal('regenerate')")
    tab.wait_for("sent.some(({ data }) => data.prediction_id === 'the-end' && data.signal)")
    assert tab.evaluate("flywheel.counts.accepted") >= before
    events = [event for event in tab.evaluate("sent") if event["data"]["prediction_id"] != "the-end"]
    return [(event["data"].get("signal", "prediction"), {**event["data"], "id": event["id"]}) for event in events]


TURNS = [
    {"role": "user", "content": [{"type": "text", "text": "What is on?"}, {"type": "image_url", "image_url": {}}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "lights", "arguments": {}}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "All of them."},
]
TOOLS = [{"type": "function", "function": {"name": "lights", "parameters": {}}}]


def test_saved_texts_are_revisions_of_one_statement_and_an_undo_is_the_last_of_them(desk: Desk) -> None:
    """Each save had an id of its own: an edit that its person took back stayed in training."""
    with desk.visit() as tab:
        events = recorded(
            tab,
            "const w = flywheel.watch(document.createElement('p'), { prompt: 'p', output: 'old', userId: 'ada' });"
            "w.edited('half-fin'); w.save(); w.save(); w.edited('finished'); w.save(); w.undo(); w.end();",
        )
    assert [(signal, data["final_text"], data["revision"]) for signal, data in events] == [
        ("edit", "half-fin", 1),
        ("edit", "finished", 2),
        ("edit", "old", 3),
    ]
    assert len({data["id"] for _, data in events}) == 1
    assert {(data["original_output"], data["prompt"], data["user_id"]) for _, data in events} == {("old", "p", "ada")}


def test_two_visits_of_one_output_are_two_statements(desk: Desk) -> None:
    """After a reload the ids began again: a new text was taken for a repetition of an old one."""
    with desk.visit() as tab:
        watch = "flywheel.watch(document.createElement('p'), { prompt: 'p', output: 'old', predictionId: 'same' })"
        events = recorded(tab, f"for (const text of ['a', 'b']) {{ const w = {watch}; w.edited(text); w.end(); }}")
    assert [(data["final_text"], data["revision"]) for _, data in events] == [("a", 1), ("b", 1)]
    assert len({data["id"] for _, data in events}) == 2


def test_a_thumb_that_is_changed_is_a_revision_and_carries_the_edited_text(desk: Desk) -> None:
    with desk.visit() as tab:
        events = recorded(
            tab,
            "const w = flywheel.watch(document.createElement('p'), { prompt: 'p', output: 'old', positiveShare: 1 });"
            "w.signal('thumb', { value: -1 }); w.save(); w.edited('new'); w.signal('thumb', { value: 1 }); w.end();",
        )
    assert [(signal, data.get("value"), data.get("final_text"), data.get("revision")) for signal, data in events] == [
        ("prediction", None, None, None),
        ("thumb", -1, None, 1),
        ("thumb", 1, "new", 2),
        ("edit", None, "new", 1),
    ]
    assert events[1][1]["id"] == events[2][1]["id"]


def test_conversations_tools_and_messages_are_sent_as_they_are(desk: Desk) -> None:
    output = {"role": "assistant", "content": "All on.", "tool_calls": TURNS[1]["tool_calls"]}
    with desk.visit() as tab:
        options = json.dumps({"prompt": TURNS, "tools": TOOLS, "output": output})
        events = recorded(
            tab,
            f"const w = flywheel.watch(document.createElement('p'), {options});"
            "w.signal('comment', { comment: 'no' }); w.edited('All are on.'); w.end();",
        )
    data = dict(events)
    assert list(data) == ["prediction", "comment", "edit"]
    assert (data["prediction"]["prompt"], data["prediction"]["output"]) == (TURNS, output)
    assert data["prediction"]["tools"] == data["edit"]["tools"] == TOOLS
    assert data["edit"]["original_output"] == output
    assert data["edit"]["final_text"] == {**output, "content": "All are on."}


@pytest.mark.parametrize("names_it", [False, True], ids=["same field and prompt", "named by the page"])
def test_a_regenerated_answer_is_sent_with_both_siblings_and_its_approval_always(desk: Desk, names_it: bool) -> None:
    """The regeneration named one answer only, and the approval of the other was sampled out: never a comparison."""
    left_out = next(f"p-{n}" for n in range(10_000) if sampling_position(f"p-{n}") >= 0.01)
    place = "document.createElement('p')" if names_it else "box"
    regenerates = ", regenerates: first" if names_it else ""
    with desk.visit() as tab:
        events = recorded(
            tab,
            "const box = document.createElement('p');"
            "const first = flywheel.watch(box, { prompt: 'p', output: 'one', predictionId: 'first' });"
            + ("" if names_it else "first.signal('regenerate');")
            + f"const second = flywheel.watch({place},"
            f" {{ prompt: 'p', output: 'two', predictionId: {left_out!r}{regenerates} }});"
            "second.signal('accept'); second.end();",
        )
    assert [signal for signal, _ in events] == ["prediction", "regenerate", "regenerate", "prediction", "accept"]
    plain, with_sibling = events[1][1], events[2][1]
    assert (plain["id"], plain["revision"]) == (with_sibling["id"], 1)
    assert with_sibling["revision"] == 2
    names = ("prediction_id", "sibling_id", "prompt", "original_output", "final_text")
    assert [with_sibling[name] for name in names] == ["first", left_out, "p", "one", "two"]
    assert (events[4][1]["prediction_id"], events[4][1]["sampling_probability"]) == (left_out, 1)


def test_another_prompt_in_the_same_field_is_no_second_answer(desk: Desk) -> None:
    with desk.visit() as tab:
        events = recorded(
            tab,
            "const box = document.createElement('p');"
            "flywheel.watch(box, { prompt: 'p', output: 'one' }).signal('regenerate');"
            "flywheel.watch(box, { prompt: 'q', output: 'two' }).end();",
        )
    assert [(signal, data.get("sibling_id")) for signal, data in events] == [("prediction", None), ("regenerate", None)]


def test_a_choice_carries_both_texts(desk: Desk) -> None:
    with desk.visit() as tab:
        events = recorded(
            tab,
            "const watch = (predictionId, output) =>"
            " flywheel.watch(document.createElement('p'), { prompt: 'p', predictionId, output, userId: 'ada' });"
            "flywheel.choose(watch('left', 'one'), watch('right', 'two'));",
        )
    [(signal, data)] = events
    assert signal == "choice"
    names = ("prediction_id", "sibling_id", "prompt", "final_text", "original_output", "user_id")
    assert [data[name] for name in names] == ["left", "right", "p", "one", "two", "ada"]


def test_a_retraction_sends_nothing_of_what_waited_and_ends_the_interaction(desk: Desk) -> None:
    with desk.visit() as tab:
        events = recorded(
            tab,
            "const w = flywheel.watch(document.createElement('p'), { prompt: 'p', output: 'o', predictionId: 'mine' });"
            "w.edited('new'); w.save(); w.edited('newer'); w.signal('thumb', { value: -1 }); w.retract(); w.end();",
        )
    assert [(signal, data.get("final_text"), data["prediction_id"]) for signal, data in events] == [
        ("edit", "new", "mine"),
        ("retract", None, "mine"),
    ]


def test_feedback_on_a_conversation_marks_its_last_answer(desk: Desk) -> None:
    with desk.visit() as tab:
        events = recorded(
            tab,
            "const shown = (predictionId) => flywheel.watch(document.createElement('p'),"
            " { prompt: 'p', output: 'o', predictionId, threadId: 't' }).end();"
            "shown('one'); shown('two');"
            "flywheel.conversation('t', 'thumb', { value: -1 });"
            "flywheel.conversation('unknown', 'thumb', { value: -1 });",
        )
    assert [(signal, data["prediction_id"], data["thread_id"]) for signal, data in events] == [
        ("prediction", "two", "t"),
        ("thumb", "two", "t"),
    ]


def test_both_clients_draw_the_same_sample(desk: Desk) -> None:
    """The script holds the hash in its own words: without this, a prediction could be kept here and left out there."""
    with desk.visit() as tab:
        source = httpx.get(f"{desk.capture.url}/flywheel.js").text
        function = source[source.index("function position") : source.index("// crypto.randomUUID")]
        ids = ["", "p-1", "Übung-🙂", *(f"prediction-{n}" for n in range(300))]
        tab.evaluate(function + "; window.position = position")
        assert tab.evaluate(f"{json.dumps(ids)}.map(position)") == [sampling_position(name) for name in ids]


def test_the_types_name_what_the_script_gives(desk: Desk) -> None:
    types = TYPES.read_text()
    members = {
        name: set(re.findall(r"^  (?:readonly )?(\w+)[(:]", body, flags=re.MULTILINE))
        for name, body in re.findall(r"interface (\w+) \{(.*?)^\}", types, flags=re.DOTALL | re.MULTILINE)
    }
    with desk.visit() as tab:
        assert set(tab.evaluate("Object.keys(flywheel)")) == members["Flywheel"]
        assert set(tab.evaluate("Object.keys(flywheel.counts)")) == members["Counts"]
        for name in members["Watcher"]:
            assert tab.evaluate(f"flywheel.watch(document.createElement('p')).{name} !== undefined"), name


def test_the_script_is_small_and_cached(tmp_path: Path) -> None:
    with running_capture(tmp_path, ["assistant"]) as capture:
        script = httpx.get(f"{capture.url}/flywheel.js")
        again = httpx.get(f"{capture.url}/flywheel.js", headers={"if-none-match": script.headers["etag"]})
    assert len(gzip.compress(script.content)) < 4608
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (again.status_code, again.content) == (304, b"")
