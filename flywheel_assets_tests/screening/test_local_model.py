"""The classifier check against a tiny model that is made here: it finds one word, wherever in the text."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from flywheel_assets.curation.policy.verdicts import TEXTS, Action
from flywheel_assets.errors import SettingsError
from flywheel_assets.records import Reason
from flywheel_assets.screening.local_model import ClassifierCheck


def texts(*chosen: str) -> pa.Table:
    rows = len(chosen)
    return pa.table({"prompt": [""] * rows, "chosen": list(chosen), "rejected": [None] * rows}, schema=TEXTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT of one layer whose weights are set by hand: the pooled first token is not used, only the word's presence.

    One feature of the embedding is 1 for "poison" and 0 for every other word. Attention is uniform (all keys are zero),
    so that after the layer the first token holds the mean of that feature, and the head is a steep threshold on it.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "poison", "fine", "text"]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=64,
        id2label={0: "ok", 1: "toxic"},
        label2id={"ok": 0, "toxic": 1},
    )
    network = BertForSequenceClassification(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        # Layer norms are the identity up to scale: features (1, -1, 0, 0) for words, (1, -1, ±) for the poison.
        embeddings = torch.tensor([[1.0, -1.0, 0.0, 0.0]]).repeat(len(words), 1)
        embeddings[4] = torch.tensor([0.0, 0.0, 1.0, -1.0])
        network.bert.embeddings.word_embeddings.weight.copy_(embeddings)
        network.bert.embeddings.LayerNorm.weight.fill_(1.0)
        attention = network.bert.encoder.layer[0].attention
        attention.self.value.weight.copy_(torch.eye(4))
        attention.output.dense.weight.copy_(100 * torch.eye(4))
        attention.output.LayerNorm.weight.fill_(1.0)
        network.bert.encoder.layer[0].output.LayerNorm.weight.fill_(1.0)
        network.bert.pooler.dense.weight.copy_(torch.eye(4))
        network.classifier.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 200.0, 0.0]]))
        network.classifier.bias.copy_(torch.tensor([0.0, -2.0]))
    folder = tmp_path_factory.mktemp("model")
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def check(model: Path) -> Iterator[ClassifierCheck]:
    made = ClassifierCheck(model=model, harmful={"toxic": "hate"}, threshold=0.5, timeout_s=120)
    yield made
    made.close()


@pytest.mark.slow
def test_harmful_texts_wait_also_where_the_harm_is_behind_the_first_window(check: ClassifierCheck) -> None:
    judgement = check.judge(texts("fine text", "poison", "fine text " * 200 + "poison poison " * 3, *["fine"] * 70, ""))
    assert sorted(judgement.verdicts) == [1, 2]
    assert judgement.passed.sum() == 72
    verdict = judgement.verdicts[1]
    assert (verdict.action, verdict.reason, verdict.category) == (Action.QUARANTINE, Reason.CLASSIFIER, "hate")
    assert verdict.score > 0.5
    pid = check._worker._running[0]._child.pid
    check.judge(texts("fine"))
    assert check._worker._running[0]._child.pid == pid, "one process serves all batches"


@pytest.mark.slow
def test_a_label_that_the_model_lacks_lets_nothing_through(check: ClassifierCheck) -> None:
    judgement = replace(check, harmful={"hateful": "hate"}).judge(texts("fine", "fine"))  # shares the process
    assert judgement.passed.sum() == 0
    assert "has no label hateful; it has ok, toxic" in judgement.verdicts[0].detail


@pytest.mark.slow
def test_a_process_that_dies_lets_nothing_through_and_is_started_again(check: ClassifierCheck) -> None:
    check.judge(texts("fine"))
    check._worker._running[0]._child.kill()
    check._worker._running[0]._child.wait()
    judgement = check.judge(texts(*["fine"] * 50))
    assert judgement.passed.sum() == 0
    assert {found.reason for found in judgement.verdicts.values()} == {Reason.CHECK_UNAVAILABLE}
    assert check.judge(texts("fine")).passed.sum() == 1


def test_a_model_that_is_not_there_lets_nothing_through(tmp_path: Path) -> None:
    check = ClassifierCheck(model=tmp_path, harmful={"toxic": "hate"})
    judgement = check.judge(texts("fine", "poison"))
    assert judgement.passed.sum() == 0
    assert {found.reason for found in judgement.verdicts.values()} == {Reason.CHECK_UNAVAILABLE}


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_lets_nothing_through(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    check = ClassifierCheck(model=tmp_path, harmful={"toxic": "hate"})
    judgement = check.judge(texts(*["fine"] * 40))
    assert judgement.passed.sum() == 0
    assert "loading the model failed" in judgement.verdicts[39].detail


def test_without_the_train_extra_nothing_passes_and_the_detail_holds_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "config.json").write_text("{}")
    judgement = ClassifierCheck(model=tmp_path, harmful={"toxic": "hate"}).judge(texts("fine"))
    assert judgement.passed.sum() == 0
    assert "pip install 'flywheel_assets[train]'" in judgement.verdicts[0].detail


def test_a_model_that_is_too_slow_lets_nothing_through(tmp_path: Path) -> None:
    """Starting the process takes longer than it is given."""
    (tmp_path / "config.json").write_text("{}")
    judgement = ClassifierCheck(model=tmp_path, harmful={"toxic": "hate"}, timeout_s=0.01).judge(texts("fine"))
    assert judgement.passed.sum() == 0
    assert "no answer within 0.01 s" in judgement.verdicts[0].detail


def test_the_version_follows_model_labels_and_threshold(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text(folder.name)
    checks = [
        ClassifierCheck(model=folders[0], harmful={"toxic": "hate"}),
        ClassifierCheck(model=folders[1], harmful={"toxic": "hate"}),
        ClassifierCheck(model=folders[0], harmful={"toxic": "privacy"}),
        ClassifierCheck(model=folders[0], harmful={"toxic": "hate"}, threshold=0.9),
    ]
    assert len({check.version for check in checks}) == 4


@pytest.mark.parametrize("options", [{"harmful": {}}, {"harmful": {"toxic": "rudeness"}}, {"threshold": 0.0}])
def test_impossible_configurations_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"harmful labels|threshold"):
        ClassifierCheck(**{"model": tmp_path, "harmful": {"toxic": "hate"}, **options})  # type: ignore[arg-type]
