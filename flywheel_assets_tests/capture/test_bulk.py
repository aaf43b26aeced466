"""Records of other systems over HTTP: every shape, the sources and ids they get, history, and what is refused."""

import gzip
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from starlette.testclient import TestClient

from flywheel_assets.capture.auth._signatures import sign_request
from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.bulk import HistoryPlace
from flywheel_assets.capture.endpoints import CaptureLimits
from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.sinks import FirstRows
from flywheel_assets.capture.log.history import HistoryLog
from flywheel_assets.capture.service import create_app
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.errors import CommitContentionError
from flywheel_assets.formats.reading.sources import hold_bytes
from flywheel_assets.lake.daily.history import list_history_imports
from flywheel_assets.lake.landing.disk import DiskLanding
from flywheel_assets_tests.capture.samples import MemoryLog, edit, prediction_event
from flywheel_assets_tests.lake.workbench import LONG_AFTER, Workbench

RECORDS = "/v1/assistant/records"
LIMITS = CaptureLimits(event_bytes=20_000, request_bytes=200_000, batch_events=50)
FRAUD = ScoreContract(features={"amount": FeatureType.NUMBER}, mapping=FieldMapping(key="tx", label="outcome"))
SCORE = {
    "id": "s1",
    "timestamp": "2025-06-05T15:45:52.971Z",
    "traceId": "t1",
    "name": "user-feedback",
    "value": 0,
    "source": "API",
    "comment": "wrong",
    "dataType": "BOOLEAN",
}
"""A webhook of Langfuse: a thumb under ids that are unique in that system."""
CHOICE = {"prompt": "How?", "chosen": "Thus.", "rejected": "No."}


@dataclass
class Sender:
    """A service, and what it has made durable."""

    http: TestClient
    log: MemoryLog

    def send(self, body: bytes | str, path: str = RECORDS, **headers: str) -> httpx.Response:
        return self.http.post(path, content=body, headers=headers)

    def take(self, body: bytes | str, path: str = RECORDS, **headers: str) -> list[dict[str, Any]]:
        """Send, expect success, and return the rows that this added."""
        before = len(self.log.rows)
        answer = self.send(body, path, **headers)
        assert answer.status_code == 202, answer.text
        return [json.loads(row.line) for row in self.log.rows[before:]]


@pytest.fixture
def sender() -> Iterator[Sender]:
    log = MemoryLog()
    with TestClient(create_app(log, {"assistant": None, "fraud": FRAUD}, LIMITS, lambda: LONG_AFTER)) as http:
        yield Sender(http, log)


def write_parquet(rows: list[dict[str, Any]]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), written)
    return written.getvalue()


EDITS = [edit(id=f"m-{number}") for number in range(3)]
LINES = "\n".join(map(json.dumps, EDITS)).encode()
TABLE = "id,prompt,original_llm_output,final_user_edit\r\n" + "".join(
    f'm-{number},How?,Thus.,"Like this."\r\n' for number in range(3)
)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (json.dumps(EDITS), {}),
        (json.dumps(EDITS, indent=2), {"content-type": "text/plain"}),
        (json.dumps({"data": EDITS}), {"content-type": "application/json"}),
        (LINES, {"content-type": "application/x-www-form-urlencoded"}),
        (gzip.compress(LINES), {}),
        (zstandard.compress(LINES), {"content-type": "application/zstd"}),
        (gzip.compress(LINES), {"content-encoding": "gzip"}),
        (gzip.compress(gzip.compress(LINES)), {"content-encoding": "gzip"}),
        (json.dumps(EDITS, ensure_ascii=False).encode("utf-16"), {}),
        (TABLE, {"content-type": "text/csv"}),
        (TABLE.replace(",", ";"), {}),
        (TABLE.replace(",", "\t"), {}),
        (write_parquet(EDITS), {"content-type": "application/vnd.apache.parquet"}),
    ],
)
def test_every_shape_that_a_file_may_have(sender: Sender, body: bytes | str, headers: dict[str, str]) -> None:
    rows = sender.take(body, **headers)
    assert [row["prediction_id"] for row in rows if "final_text" in row] == ["m-0", "m-1", "m-2"]


def test_an_export_is_recognised_by_file_and_over_http_and_does_not_pose_as_an_import(sender: Sender) -> None:
    kept = FirstRows()
    import_files([hold_bytes("scores.jsonl", json.dumps(SCORE).encode())], ImportPlan(application="assistant"), kept)
    [imported] = [json.loads(row.line) for row in kept.rows]
    [first] = sender.take(json.dumps([SCORE]))
    [again] = sender.take(json.dumps(SCORE), f"{RECORDS}?format=langfuse")
    assert (imported["source"], first["source"], again["source"]) == (
        "import:langfuse",
        "http:langfuse",
        first["source"],
    )
    assert imported["event_id"] == first["event_id"] == again["event_id"]


def test_ids_that_count_within_one_file_count_within_one_body(sender: Sender) -> None:
    corrected = {"corrected": [{"value": "Better.", "user_id": "ann"}]}
    record = {"id": "r1", "fields": {"prompt": "How?", "response": "Thus."}, "responses": corrected}
    path = f"{RECORDS}?format=argilla"
    one, same, other = (
        [
            row["statement_id"]
            for row in sender.take(json.dumps({**record, "metadata": {"n": number}}), path)
            if "statement_id" in row
        ]
        for number in (1, 1, 2)
    )
    assert {row["source"] for row in map(json.loads, (row.line for row in sender.log.rows))} == {"http:argilla"}
    assert one == same != other
    assert one


def test_records_in_our_own_fields_land_as_events_and_edits_do(sender: Sender) -> None:
    [prediction, feedback] = sender.take(json.dumps(edit(id="m-1")))
    [there, direct] = sender.take(
        json.dumps(edit(id="m-1")), "/v1/assistant/edits", **{"content-type": "application/json"}
    )
    assert (prediction["event_id"], feedback["event_id"]) == (there["event_id"], direct["event_id"])
    [event] = sender.take(json.dumps(prediction_event(source="app")))
    assert event["source"] == "app"
    [choice] = sender.take(json.dumps(CHOICE))
    assert choice["source"] == "edits-api"
    [retraction] = sender.take('{"retracts": "m-1"}')
    assert retraction["retracts"] == feedback["statement_id"]


def test_the_handbooks_line_is_accepted_as_written(sender: Sender) -> None:
    page = (Path(__file__).parents[2] / "docs" / "capture.md").read_text()
    [(path, body)] = re.findall(r"curl http://127\.0\.0\.1:8700(\S+/records) -d '(\{.*?\})'", page)
    [thumb] = sender.take(body, path, **{"content-type": "application/x-www-form-urlencoded"})
    assert (thumb["signal"], thumb["value"], thumb["source"]) == ("thumb", -1.0, "http:langfuse")


def test_a_list_that_is_wrapped_with_its_page_is_read(sender: Sender) -> None:
    """As the interface of Langfuse gives scores."""
    [thumb] = sender.take(json.dumps({"data": [SCORE], "meta": {"page": 1, "limit": 100, "totalItems": 1}}))
    assert thumb["signal"] == "thumb"


@pytest.mark.parametrize("source", ["import:langfuse", "import:retracts", "reviewer"])
def test_a_sender_cannot_use_a_source_of_this_project(sender: Sender, source: str) -> None:
    answer = sender.send(json.dumps([prediction_event(source=source), edit()]))
    assert (answer.status_code, answer.json()["accepted"], answer.json()["refused"]) == (202, 1, 1)
    assert "is reserved" in answer.json()["causes"][0]["error"]


def test_refused_records_are_grouped_by_cause(sender: Sender) -> None:
    answer = sender.send(
        json.dumps([edit(), {"prompt": "p", "chosen": "c"}, {"prompt": "q", "chosen": "c"}, edit(x=1)])
    )
    found = answer.json()
    assert (answer.status_code, found["format"], found["shape"]) == (202, "edits", "JSON")
    assert (found["records"], found["accepted"], found["refused"], found["unused"]) == (4, 2, 2, 0)
    assert [(cause["records"], cause["first"]) for cause in found["causes"]] == [(2, 2)]
    assert "lacks `rejected`" in found["causes"][0]["error"]
    assert (found["events"], found["unmapped"]) == ({"edit": 2}, ["x"])


def test_a_classifiers_predictions_and_labels_come_in_one_table(sender: Sender) -> None:
    body = json.dumps([{"tx": 1, "score": 0.5, "features": {"amount": 3}, "outcome": True, "batch": "b"}])
    scored, labelled = sender.take(body, "/v1/fraud/records")
    assert (scored["source"], scored["prediction_id"], labelled["label"]) == ("http:scores", "1", "true")
    assert sender.send(body, "/v1/fraud/records").json()["unmapped"] == ["batch"]
    posing = {"specversion": "1.0", "id": "e", "source": "import:x", "type": "flywheel.prediction", "data": {}}
    assert "is reserved" in sender.send(json.dumps(posing), "/v1/fraud/records").text


@pytest.mark.parametrize(
    ("body", "query", "headers", "status", "says"),
    [
        (b"", "", {}, 400, ""),
        (json.dumps([{"a": 1}]), "", {}, 400, "no format has the fields of the body: a"),
        (json.dumps(EDITS), "?format=nonsense", {}, 400, "unknown format 'nonsense'"),
        (json.dumps(EDITS), "?history=perhaps", {}, 400, "valid: true, false"),
        (json.dumps(EDITS), "?history=true", {}, 400, "takes no history"),
        (LINES, "", {"content-type": "multipart/form-data; boundary=x"}, 415, "--data-binary @"),
        (b"PK\x03\x04rest", "", {}, 400, "zip"),
        (json.dumps([edit()] * 51), "", {}, 413, "more than 50 records"),
        (json.dumps([edit(prompt="x" * 30_000)] * 2), "", {}, 400, "longer than 20000 bytes"),
        (gzip.compress(bytes(2**21)), "", {}, 413, "larger than 200000 bytes"),
        (zstandard.compress(bytes(2**21)), "", {}, 413, "larger than 200000 bytes"),
        (gzip.compress(gzip.compress(bytes(2**21))), "", {}, 400, "compressed twice"),
        (gzip.compress(LINES)[:-9], "", {}, 400, "ends in the middle"),
        (write_parquet([edit(final_user_edit="y" * 19_000)] * 50), "", {}, 413, "become more than 600000 bytes"),
    ],
)
def test_a_body_that_cannot_be_taken_leaves_nothing(
    sender: Sender, body: bytes | str, query: str, headers: dict[str, str], status: int, says: str
) -> None:
    answer = sender.send(body, f"{RECORDS}{query}", **headers)
    assert (answer.status_code, sender.log.rows) == (status, []), answer.text
    assert says in answer.text


def test_a_kilobyte_of_parquet_with_a_long_text_in_every_row_stays_small() -> None:
    """A text that stands once in a dictionary is as long in every row: 1 KB took 974 MB while a format was sought."""
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["x" * 3_000_000]))
    short = pa.array(["a"] * 2_000)
    written = io.BytesIO()
    table = pa.table({"prompt": long, "original_llm_output": short, "final_user_edit": short})
    pq.write_table(table, written, compression="zstd", dictionary_pagesize_limit=10_000_000, write_statistics=False)
    assert len(written.getvalue()) < 2_000
    log = MemoryLog()
    with TestClient(create_app(log, ["assistant"], CaptureLimits(request_bytes=8 * 2**20))) as http:
        tracemalloc.start()
        try:
            answer = http.post(RECORDS, content=written.getvalue())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (answer.status_code, log.rows) == (413, []), answer.text
    assert peak < 160 * 2**20


def test_a_webhook_that_comes_again_is_not_written_again(keyed: "Keyed") -> None:
    body = json.dumps(SCORE).encode()
    timestamp = int(LONG_AFTER.timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign_request(keyed.keys["hook"], "msg_1", timestamp, body),
    }
    answers = [keyed.http.post(RECORDS, content=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert len(keyed.log.rows) == 1
    assert keyed.http.post(RECORDS, content=body + b" ", headers=headers).status_code == 401


# History ---------------------------------------------------------------------------------------------------------


@dataclass
class Keyed:
    """A service with history and keys."""

    http: TestClient
    bench: Workbench
    keys: dict[str, str]
    reported: list[str]
    log: MemoryLog

    def send(self, key: str, query: str, body: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.keys[key]}"}
        return self.http.post(f"{RECORDS}{query}", content=body, headers=headers)


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    path = tmp_path / "keys.json"
    wanted = {
        "backend": KeyRequest("assistant", "backend"),
        "web": KeyRequest("assistant", "web", origins=["https://app.example"]),
        "hook": KeyRequest("assistant", "crm", is_webhook=True),
        "mover": KeyRequest("assistant", "ada", scopes=[Scope.IMPORT]),
    }
    keys = {name: create_key(path, request, LONG_AFTER).secret for name, request in wanted.items()}
    bench = Workbench(tmp_path)
    reported: list[str] = []

    def open_log(application: str, who: str, reason: str, file: str) -> HistoryLog:
        assert application == "assistant"
        landing, scratch = DiskLanding(bench.landing), tmp_path / "history"
        return HistoryLog(bench.lake, landing, scratch, who, reason, file, clock=lambda: LONG_AFTER)

    place = HistoryPlace(open_log, reported.append)
    access = Access(KeyStore(path), clock=lambda: LONG_AFTER)
    log = MemoryLog()
    app = create_app(log, ["assistant"], LIMITS, lambda: LONG_AFTER, access, history=place)
    with TestClient(app) as http:
        yield Keyed(http, bench, keys, reported, log)


PAST = edit(id="m-1", occurred_at=datetime(2026, 1, 5, 8, tzinfo=UTC).isoformat())


def test_history_lands_on_its_own_days_by_a_key_of_the_scope_import(keyed: Keyed) -> None:
    answer = keyed.send("mover", "?history=true&reason=moved", json.dumps([PAST]))
    found = answer.json()["history"]
    assert (answer.status_code, found["days"], found["reopened"]) == (202, ["2026-01-05"], []), answer.text
    assert found["next"] == "flywheel backfill 2026-01-05 2026-01-05 --application assistant"
    [decision] = list_history_imports(keyed.bench.lake)
    assert decision.decided_by.startswith("ada (key ")
    assert (decision.reason, keyed.reported) == ("moved", ["assistant"])
    again = keyed.send("mover", "?history=true&reason=moved", json.dumps([PAST])).json()["history"]
    assert (again["days"], again["next"], again["known_rows"]) == ([], None, 2)


@pytest.mark.parametrize(
    ("key", "query", "status", "says"),
    [
        ("backend", "?history=true&reason=x", 403, "needed: import"),
        ("mover", "", 403, "needed: write"),
        ("mover", "?history=true", 400, "`reason` has 0 characters"),
        ("mover", f"?history=true&reason={'x' * 501}", 400, "`reason` has 501 characters"),
        ("mover", "?history=true&reason=x&format=trl", 400, ""),
    ],
)
def test_history_needs_its_scope_and_a_reason(keyed: Keyed, key: str, query: str, status: int, says: str) -> None:
    answer = keyed.send(key, query, json.dumps([PAST]))
    assert answer.status_code == status, answer.text
    assert says in answer.text
    assert list_history_imports(keyed.bench.lake) == []


def test_too_many_records_of_history_publish_nothing(keyed: Keyed) -> None:
    assert keyed.send("mover", "?history=true&reason=x", json.dumps([PAST] * 51)).status_code == 413
    assert list_history_imports(keyed.bench.lake) == []


def test_history_that_must_wait_is_503(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: HistoryLog) -> None:
        raise CommitContentionError("a daily step was at work for ten minutes; repeat")

    monkeypatch.setattr(HistoryLog, "publish", refuse)
    answer = keyed.send("mover", "?history=true&reason=x", json.dumps([PAST]))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


def test_a_web_page_sends_no_exports(keyed: Keyed) -> None:
    headers = {"authorization": f"Bearer {keyed.keys['web']}", "origin": "https://app.example"}
    answer = keyed.http.post(RECORDS, content=json.dumps(EDITS), headers=headers)
    assert (answer.status_code, "records come from servers" in answer.text) == (403, True)


def test_records_cannot_claim_a_trusted_role_either(tmp_path: Path) -> None:
    """A write key posted `"labeling_source": "analyst"` and overruled the analysts; this door asks the key, too."""
    path = tmp_path / "keys.json"
    plain = create_key(path, KeyRequest("fraud", "shop"), LONG_AFTER).secret
    analyst = create_key(path, KeyRequest("fraud", "desk", labels_as=["analyst"]), LONG_AFTER).secret
    contract = replace(FRAUD, trusted_sources=frozenset({"analyst"}))
    access = Access(KeyStore(path), clock=lambda: LONG_AFTER)
    label = json.dumps({"tx": "t1", "outcome": True, "labeling_source": "analyst"})
    with TestClient(create_app(MemoryLog(), {"fraud": contract}, LIMITS, lambda: LONG_AFTER, access)) as http:
        for secret, status in ((plain, 400), (analyst, 202)):
            headers = {"authorization": f"Bearer {secret}"}
            answer = http.post("/v1/fraud/records", content=label, headers=headers)
            assert answer.status_code == status, answer.text
