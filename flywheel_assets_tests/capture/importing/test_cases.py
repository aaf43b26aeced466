"""Files that teams had and that did not go in, each with the right value."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.applications.fraud import APPLICATION as FRAUD
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.formats.reading.sources import Source, hold_bytes
from flywheel_assets_tests.capture.imports import import_into
from flywheel_assets_tests.capture.samples import Clock, edit, landed

ROWS = [
    {
        "id": str(number),
        "prompt": f"Question number {number} about ledgers",
        "original_llm_output": f"The old answer {number} is plain text.",
        "final_user_edit": f"A newer answer {number} is better text.",
        "user_id": f"f{number}",
    }
    for number in (1, 2)
]
ONE, TWO = (json.dumps(row) for row in ROWS)
LEDGER_EDITS = {
    "array_in_jsonl": f"[{ONE}, {TWO}]",
    "blank_lines": f"{ONE}\n\n   \n\t\n{TWO}\n",
    "joined": f"{ONE}\n\ufeff{TWO}\n",
    "bom": f"\ufeff{ONE}\n{TWO}\n",
    "cr_only": f"{ONE}\r{TWO}\r",
    "crlf": f"{ONE}\r\n{TWO}\r\n",
    "pretty_array": json.dumps(ROWS, indent=2),
    "trailing_commas": f"{ONE},\n{TWO},\n",
    "no_final_newline": f"{ONE}\n{TWO}",
}


def texts(landing: Path) -> list[tuple[Any, ...]]:
    names = ("prompt", "original_output", "final_text", "user_id")
    return [tuple(row.get(name) for name in names) for row in landed(landing, "feedback")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", LEDGER_EDITS)
def test_two_edits_in_any_shape(tmp_path: Path, name: str, encoding: str) -> None:
    source = hold_bytes(f"{name}.jsonl", LEDGER_EDITS[name].encode(encoding))
    result = import_into(tmp_path, source)
    assert (result.accepted, result.refused, result.exit_code) == (2, 0, 0)
    names = ("prompt", "original_llm_output", "final_user_edit", "user_id")
    assert texts(tmp_path) == [tuple(row[name] for name in names) for row in ROWS]


HEADER = b"prompt\toriginal_llm_output\tfinal_user_edit\n"


def one_edit(**fields: Any) -> bytes:
    return json.dumps(ROWS[0] | fields, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("name", "content", "reading", "expected"),
    [
        ("extra_columns", one_edit(score=1, session_id="s"), {}, "A newer answer 1 is better text."),
        ("gz_named_jsonl", gzip.compress(one_edit()), {}, "A newer answer 1 is better text."),
        ("int_id", one_edit(id=1), {}, "A newer answer 1 is better text."),
        ("latin1", one_edit(final_user_edit="Größe").decode().encode("latin-1"), {"encoding": "latin-1"}, "Größe"),
        ("ls_separator", one_edit(final_user_edit="A newer\u2028answer"), {}, "A newer\u2028answer"),
        ("nan", one_edit(score=float("nan")), {}, "A newer answer 1 is better text."),
        ("escapes", HEADER + b"Q\told\\none\tnew\\none\n", {}, "new\\none"),
        ("escapes", HEADER + b"Q\told\\none\tnew\\none\n", {"escapes": True}, "new\none"),
        ("pandas", b"\t" + HEADER + b"0\tQ one\told\tnew\n", {}, "new"),
        ("quoted", HEADER + b'"Say ""hi"""\t"old\ntwo"\t"new\ntwo"\n', {}, "new\ntwo"),
        ("edits", HEADER.replace(b"\t", b",") + b'"Say hi, please",Hello,"Hello, friend"\n', {}, "Hello, friend"),
        ("semicolon", "\ufeffprompt;original_llm_output;final_user_edit\r\nSag;Hallo;Na\r\n".encode(), {}, "Na"),
    ],
)  # fmt: skip
def test_one_edit(tmp_path: Path, name: str, content: bytes, reading: dict[str, Any], expected: str) -> None:
    result = import_into(tmp_path, hold_bytes(name, content), reading=reading)
    assert (result.accepted, result.exit_code) == (1, 0)
    [row] = landed(tmp_path, "feedback")
    assert (row["final_text"], row["source"]) == (expected, f"import:{name}")


def test_numbers_and_texts_are_one_id(tmp_path: Path) -> None:
    for given in (1, "1"):
        import_into(tmp_path, hold_bytes("x", one_edit(id=given)))
    assert len({row["statement_id"] for row in landed(tmp_path, "feedback")}) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{'id': '1', 'prompt': 'Question', 'final_user_edit': 'x'}\n", "Python's own notation of a dict"),
        (one_edit(final_user_edit="Größe").decode().encode("latin-1"), "--encoding latin-1"),
        (b"", ""),
    ],
)
def test_what_is_refused_says_what_helps(tmp_path: Path, content: bytes, says: str) -> None:
    result = import_into(tmp_path, hold_bytes("x.jsonl", content))
    assert result.exit_code == 1
    assert says in "".join(cause.problem for cause in result.causes)


FEATURES = dict.fromkeys(FRAUD.contract.features, 1) | {"is_weekend": False, "is_night": False}
EVENT = {"specversion": "1.0", "id": "e1", "source": "x"}
SCORED = EVENT | {"type": "flywheel.prediction", "data": {"features": FEATURES, "score": 0.5}}
LABELLED = EVENT | {"id": "l1", "type": "flywheel.feedback"}


def import_fraud(landing: Path, *documents: Any, name: str = "x.jsonl") -> Any:
    source = hold_bytes(name, "\n".join(map(json.dumps, documents)).encode())
    return import_into(landing, source, application="fraud", contract=FRAUD.contract, clock=Clock())


def test_a_classifiers_own_json_and_its_events_in_one_file(tmp_path: Path) -> None:
    prediction = {
        "transaction_id": "t1",
        "prediction": {"fraud_probability": 0.6},
        "features": FEATURES,
        "colour": "red",
    }
    label = {"transaction_id": "t1", "ground_truth": {"is_fraud": True, "timestamp": "2026-02-28T00:00:00Z"}}
    bad = LABELLED | {"data": {"prediction_id": "e1", "signal": "label", "label": "maybe"}}
    result = import_fraud(tmp_path, prediction, label, SCORED, bad)
    assert (result.accepted, result.refused, result.exit_code) == (3, 1, 3)
    assert result.events == {"prediction": 2, "label": 1}
    assert "valid: true, false" in result.causes[0].problem
    assert result.files[0].unread == ("colour",)
    [own, event] = landed(tmp_path, "prediction", "fraud")
    assert (own["prediction_id"], own["score"], event["prediction_id"]) == ("t1", 0.6, "e1")
    [row] = landed(tmp_path, "feedback", "fraud")
    assert (row["label"], row["occurred_at"]) == ("true", "2026-02-28T00:00:00.000000Z")


def test_texts_for_a_classifier_are_one_sentence(tmp_path: Path) -> None:
    """Each of 10,000 edits was refused for lacking `transaction_id`."""
    result = import_fraud(tmp_path, *[edit()] * 500, name="edits.jsonl")
    assert (result.accepted, result.exit_code, result.causes) == (0, 1, ())
    assert result.files[0].problem is not None
    assert "edits.jsonl holds texts, and fraud is a classification application" in result.files[0].problem


def read_rows(landing: Path, *sources: Source) -> Sequence[dict[str, Any]]:
    import_into(landing, *sources, clock=Clock())
    return landed(landing, "feedback")


def test_a_line_that_takes_back_an_edit_of_its_file(tmp_path: Path) -> None:
    content = one_edit(id="a") + b'\n{"retracts": "a"}\n'
    edited, retracted = read_rows(tmp_path, hold_bytes("x.jsonl", content))
    assert (retracted["signal"], retracted["retracts"]) == ("retract", edited["statement_id"])


def test_several_files_and_one_that_is_no_data(tmp_path: Path) -> None:
    good, bad = hold_bytes("a.jsonl", one_edit()), hold_bytes("b.xlsx", b"PK\x03\x04")
    result = import_into(tmp_path, bad, good)
    assert (result.accepted, result.exit_code) == (1, 3)
    assert (
        result.files[0].problem == "b.xlsx is a zip archive or an Excel workbook; unpack it, or save the sheet as CSV"
    )


def test_a_limit_counts_over_all_files(tmp_path: Path) -> None:
    sources = [hold_bytes(f"{name}.jsonl", LEDGER_EDITS["crlf"].encode()) for name in "abc"]
    assert import_into(tmp_path, *sources, limit=3).records == 3


def test_an_event_beyond_the_bound_of_the_log_is_refused_alone(tmp_path: Path) -> None:
    content = one_edit(final_user_edit="x" * 5000) + b"\n" + one_edit()
    result = import_into(tmp_path, hold_bytes("x", content), event_bytes=4000)
    assert (result.accepted, result.refused) == (1, 1)
    assert "valid: at most 4000" in result.causes[0].problem


def test_declared_features_of_a_wide_table_are_not_listed_as_unread(tmp_path: Path) -> None:
    """Every feature but the amount was listed as not taken, although it was stored."""
    contract = ScoreContract(
        features={"amount": FeatureType.NUMBER, "country": FeatureType.TEXT},
        mapping=FieldMapping(key="id", features=None, numbers_as_text=True),
    )
    table = hold_bytes("x.csv", b"id,score,amount,country,batch\n1,0.5,2,DE,b7\n")
    result = import_into(tmp_path, table, application="fraud", contract=contract, clock=Clock())
    assert (result.accepted, result.files[0].unread) == (1, ("batch",))
