"""Versions in the formats of training tools, each read back by the library that the format belongs to."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow.parquet as pq
import pytest

from flywheel_assets.errors import InvalidRuleError, ManifestMismatchError, VersionConflictError
from flywheel_assets.formats.messages import read_messages
from flywheel_assets.formats.writing.examples import Example
from flywheel_assets.lake.tables.specs import CLASSIFICATION_TABLES
from flywheel_assets.lake.versions.example_versions import ExampleRules, cut_example_version
from flywheel_assets.lake.versions.exports import MANIFEST_FILE, ExportSet, build_json_lines_writer, write_export
from flywheel_assets.lake.versions.folders import VersionFolder, Versions
from flywheel_assets.lake.versions.publishing import list_copies
from flywheel_assets.lake.versions.sharing import SharedFormat, SharedManifest, SharedSet, share_version
from flywheel_assets_tests.builders import day
from flywheel_assets_tests.formats.writing import samples
from flywheel_assets_tests.lake.labelled import CONTRACT, RULES, label, run, score
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.models.chat_templates import make_tokenizer

VERSION = "dpo_gold_v1"
CHATS = {
    ExportSet.TRAIN: [samples.CHAT_PAIR, samples.TEXT_PAIR, samples.CALL_PAIR, samples.RESULT_PAIR],
    ExportSet.ACCEPTED: [samples.ACCEPTED, samples.ADDED],
    ExportSet.HOLDOUT: [samples.CHAT_PAIR, samples.ACCEPTED],
    ExportSet.REGRESSION: [samples.ACCEPTED],
    ExportSet.OBJECTIONS: [samples.OBJECTION],
}
TEXTS = {ExportSet.TRAIN: [samples.TEXT_PAIR] * 2}
Cut = Callable[[Mapping[ExportSet, Sequence[Example]]], VersionFolder]


@pytest.fixture
def cut(tmp_path: Path) -> Cut:
    def cut(examples: Mapping[ExportSet, Sequence[Example]]) -> VersionFolder:
        folder = Versions(tmp_path / "versions", "assistant").folder(VERSION)
        rows = [(which, each) for which, some in examples.items() for each in some]
        exported = ((which, samples.exported_row(number, each)) for number, (which, each) in enumerate(rows))
        write_export(
            folder.export,
            version=VERSION,
            application="assistant",
            snapshot_id=7,
            write_files=build_json_lines_writer(VERSION, exported),
            dropped={"duplicate": 3},
            days={"2026-03-02": "hash"},
            rules={},
            code_version="code",
        )
        return folder

    return cut


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def load(path: Path, *arguments: str, **more: Any) -> Any:
    import datasets

    return datasets.load_dataset(str(path), *arguments, **more)


def load_lines(path: Path) -> Any:
    return load(Path("json"), data_files=str(path), split="train")


def read_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.long
def test_trl_reads_pairs_and_renders_them(cut: Cut, tmp_path: Path) -> None:
    from trl.data_utils import is_conversational, maybe_apply_chat_template

    shared = share_version(cut(CHATS), tmp_path / "out", SharedFormat.TRL)
    assert {name: file.rows for name, file in shared.files.items()} == {
        "holdout.preference.jsonl": 1,
        "holdout.sft.jsonl": 1,
        "regression.sft.jsonl": 1,
        "train.preference.jsonl": 4,
        "train.sft.jsonl": 2,
    }
    assert shared.not_expressed == {"wrong_answer_alone": 1}
    tokenizer = make_tokenizer("chatml")
    pairs = load_lines(tmp_path / "out" / "train.preference.jsonl")
    assert all(map(is_conversational, pairs))
    rendered = [maybe_apply_chat_template(dict(pair), tokenizer) for pair in list(pairs)[:2]]
    assert rendered[0]["prompt"].endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    assert [each["chosen"] for each in rendered] == ["Because of the rain.<|im_end|>\n"] * 2
    [right, added] = load_lines(tmp_path / "out" / "train.sft.jsonl")
    assert maybe_apply_chat_template(dict(right), tokenizer)["completion"] == "Hello!<|im_end|>\n"
    assert json.loads(added["tools"]) == samples.OTHER_TOOLS


def test_a_version_of_texts_stays_texts(cut: Cut, tmp_path: Path) -> None:
    from trl.data_utils import is_conversational

    share_version(cut(TEXTS), tmp_path / "out", SharedFormat.TRL)
    pairs = load_lines(tmp_path / "out" / "train.preference.jsonl")
    assert pairs[0] == {"prompt": "Why?", "chosen": "Because of the rain.", "rejected": "I do not know."}
    assert not is_conversational(pairs[0])


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")  # transformers' own default of its old name
def test_a_kto_trainer_takes_the_judged_rows(cut: Cut, tmp_path: Path) -> None:
    """Its own preparation runs, which parses tools, renders and tokenizes."""
    from trl.trainer.kto_config import KTOConfig
    from trl.trainer.kto_trainer import KTOTrainer

    share_version(cut(CHATS), tmp_path / "out", SharedFormat.KTO)
    rows = load_lines(tmp_path / "out" / "train.jsonl")
    assert sum(rows["label"]) == 6
    assert len(rows) == 11
    trainer = object.__new__(KTOTrainer)
    trainer.calculate_KL = False
    arguments = KTOConfig(output_dir=str(tmp_path / "trainer"), report_to=[], bf16=False, max_length=None)
    prepared = trainer._prepare_dataset(rows, make_tokenizer("chatml"), arguments, "evaluation")
    assert len(prepared) == 11
    assert all(prepared["prompt_ids"])
    objection = rows[len(rows) - 1]
    assert (objection["label"], objection["completion"][0]["content"]) == (False, "Go away.")


def test_openai_rows_are_counted_when_they_cannot_be_expressed(cut: Cut, tmp_path: Path) -> None:
    examples = {
        ExportSet.TRAIN: [samples.RESULT_PAIR, samples.REASONED, samples.ONLY_REASONED],
        ExportSet.ACCEPTED: [samples.ACCEPTED],
        ExportSet.OBJECTIONS: [samples.OBJECTION],
    }
    shared = share_version(cut(examples), tmp_path / "out", SharedFormat.OPENAI)
    assert shared.not_expressed == {"same_answers": 1, "wrong_answer_alone": 1}
    assert shared.reasoning_left_out == 1
    pairs = read_lines(tmp_path / "out" / "train.preference.jsonl")
    assert [set(pair) for pair in pairs] == [{"input", "preferred_output", "non_preferred_output"}] * 2
    [chat] = read_lines(tmp_path / "out" / "train.sft.jsonl")
    assert [message["role"] for message in chat["messages"]] == ["system", "user", "assistant"]
    again = read_messages(pairs[0]["input"]["messages"])
    assert again[2].tool_calls[0].function == samples.AFTER_A_TOOL[2].tool_calls[0].function


def test_parquet_has_typed_columns_and_no_subject(cut: Cut, tmp_path: Path) -> None:
    shared = share_version(cut(CHATS), tmp_path / "out", SharedFormat.PARQUET)
    assert sorted(shared.files) == [f"{each}.parquet" for each in sorted(CHATS)]
    rows = pq.read_table(tmp_path / "out" / "train.parquet")
    assert "subject" not in rows.column_names
    first = rows.slice(2, 1).to_pylist()[0]
    assert [message["role"] for message in first["prompt"]] == ["system", "user"]
    [asked] = first["chosen"][0]["tool_calls"]
    assert (asked["id"], asked["function"]) == ("c1", {"name": "weather", "arguments": '{"city":"Rome"}'})
    assert str(first["completed_date"]) == "2026-03-02"
    [objection] = pq.read_table(tmp_path / "out" / "objections.parquet").to_pylist()
    assert (objection["chosen"], objection["rejected"][0]["content"]) == (None, "Go away.")
    with duckdb.connect() as connection:
        found = connection.sql(
            f"SELECT prompt[-1].content FROM '{tmp_path}/out/train.parquet' ORDER BY pair_id"
        ).fetchall()
    assert found[0] == ("Why?",)


def test_hugging_face_loads_every_split_with_objects_in_place(cut: Cut, tmp_path: Path) -> None:
    share_version(cut(CHATS), tmp_path / "out", SharedFormat.HF, license_="cc-by-4.0")
    pairs = load(tmp_path / "out")
    assert {split: len(rows) for split, rows in pairs.items()} == {"train": 4, "holdout": 1}
    train = pairs["train"]
    assert train[2]["chosen"][0]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert train[2]["tools"] == samples.TOOLS
    assert train[1]["prompt"][0]["content"] == "Why?"
    right = load(tmp_path / "out", "sft")
    assert {split: len(rows) for split, rows in right.items()} == {"train": 2, "holdout": 1, "regression": 1}
    [objection] = load(tmp_path / "out", "objection", split="train")
    assert objection["label"] is False


def test_content_in_parts_keeps_its_form(cut: Cut, tmp_path: Path) -> None:
    share_version(cut({ExportSet.TRAIN: [samples.SHOWN, samples.CHAT_PAIR]}), tmp_path / "out", SharedFormat.HF)
    shown, chat = load(tmp_path / "out", split="train")
    assert shown["prompt"][0]["content"] == samples.SHOWN.messages[0].content
    assert chat["prompt"][1]["content"] == "Why?"


def test_the_card_states_counts_reasons_licence_and_hashes(cut: Cut, tmp_path: Path) -> None:
    import yaml

    share_version(cut(CHATS), tmp_path / "out", SharedFormat.HF)
    card = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert (header["license"], header["license_name"]) == ("other", "not stated")
    assert [each["config_name"] for each in header["configs"]] == ["preference", "sft", "objection"]
    assert "| `duplicate` | 3 |" in card
    for fact in ("assistant", VERSION, "`7`", "`code`", "Licence: not stated"):
        assert fact in card
    hashes = dict(re.findall(r"`(data/\S+)` \| `([0-9a-f]{64})`", card))
    assert len(hashes) == 6
    for name, sha256 in hashes.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("format_", list(SharedFormat))
def test_the_manifest_hashes_every_file_and_holds_no_text(cut: Cut, tmp_path: Path, format_: SharedFormat) -> None:
    folder = cut(CHATS)
    share_version(folder, tmp_path / "out", format_)
    written = (tmp_path / "out" / MANIFEST_FILE).read_bytes()
    manifest = msgspec.json.decode(written, type=SharedManifest)
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {*manifest.files, MANIFEST_FILE}
    for name, file in manifest.files.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == file.sha256
        assert b"ada-" not in (tmp_path / "out" / name).read_bytes()
    assert b"Because" not in written
    assert list_copies(folder) == [str(tmp_path / "out")], "an erasure names it"


def test_one_set_alone(cut: Cut, tmp_path: Path) -> None:
    folder = cut(CHATS)
    shared = share_version(folder, tmp_path / "out", SharedFormat.TRL, SharedSet.HOLDOUT)
    assert sorted(shared.files) == ["holdout.preference.jsonl", "holdout.sft.jsonl"]


def test_a_folder_is_replaced_only_on_demand_and_only_our_own(cut: Cut, tmp_path: Path) -> None:
    folder, out = cut(CHATS), tmp_path / "out"
    share_version(folder, out, SharedFormat.TRL)
    with pytest.raises(VersionConflictError, match="--replace"):
        share_version(folder, out, SharedFormat.KTO)
    share_version(folder, out, SharedFormat.KTO, replaces=True)
    assert (out / "train.jsonl").exists()
    assert not (out / "train.preference.jsonl").exists()
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.txt").write_text("irreplaceable")
    with pytest.raises(VersionConflictError, match="leaves it alone"):
        share_version(folder, mine, SharedFormat.TRL, replaces=True)
    assert (mine / "chapter.txt").exists()


@pytest.fixture
def scores(tmp_path: Path) -> VersionFolder:
    """Fraud decisions of 30 days, every third with a label, cut as a version."""
    bench = Workbench(tmp_path / "bench", tables=CLASSIFICATION_TABLES)
    events = [score(day(at), f"p{at}", user_id="mallory") for at in range(30)]
    run(bench, [*events, *(label(day(at + 1), f"p{at}") for at in range(0, 27, 3))], day(29))
    versions = Versions(bench.root / "versions", bench.application)
    rules = ExampleRules(contract=CONTRACT, mining=RULES, evaluation_weeks=1)
    cut_example_version(bench.lake, versions, "fraud_gold_v1", rules, "1")
    return versions.folder("fraud_gold_v1")


def test_scores_become_typed_columns(scores: VersionFolder, tmp_path: Path) -> None:
    shared = share_version(scores, tmp_path / "out", SharedFormat.PARQUET)
    assert sorted(shared.files) == ["evaluation.parquet", "train.parquet"]
    rows = pq.read_table(tmp_path / "out" / "train.parquet")
    for name in ("is_positive", "sample_weight", "inclusion_probability", "score_at_decision", "label_known_at"):
        assert name in rows.column_names
    assert "subject" not in rows.column_names
    types = {name: str(rows.schema.field(f"features.{name}").type) for name in ("amount", "night", "country")}
    assert types == {"amount": "double", "night": "bool", "country": "string"}
    assert rows["features.amount"].null_count == 0
    original = pq.read_table(scores.export / "fraud_gold_v1.parquet")
    assert rows["prediction_id"] == original["prediction_id"]
    assert rows["is_positive"] == original["is_positive"]


def test_scores_load_as_two_splits_with_the_same_columns(scores: VersionFolder, tmp_path: Path) -> None:
    share_version(scores, tmp_path / "out", SharedFormat.HF)
    loaded = load(tmp_path / "out")
    assert set(loaded) == {"train", "holdout"}
    assert loaded["train"].column_names == loaded["holdout"].column_names
    assert set(loaded["train"]["is_positive"]) == {True, False}


@pytest.mark.parametrize("format_", [SharedFormat.TRL, SharedFormat.OPENAI, SharedFormat.KTO])
def test_scores_have_no_form_for_chats(scores: VersionFolder, tmp_path: Path, format_: SharedFormat) -> None:
    with pytest.raises(InvalidRuleError, match=f"--format {format_} has no form for; valid: hf, parquet"):
        share_version(scores, tmp_path / "out", format_)
    assert list_copies(scores) == []


def test_a_set_that_the_version_lacks_is_named(scores: VersionFolder, tmp_path: Path) -> None:
    with pytest.raises(InvalidRuleError, match="has no set 'regression'; valid: holdout, train, all"):
        share_version(scores, tmp_path / "out", SharedFormat.PARQUET, SharedSet.REGRESSION)


def test_a_changed_version_is_not_copied(cut: Cut, tmp_path: Path) -> None:
    folder = cut(TEXTS)
    with open(folder.export / f"{VERSION}.jsonl", "ab") as file:
        file.write(b"{}\n")
    with pytest.raises(ManifestMismatchError):
        share_version(folder, tmp_path / "out", SharedFormat.TRL)
    assert not (tmp_path / "out").exists()
