"""The smallest world in which training means something: a model that writes a wrong library, people who correct it.

Built on the spot: a byte-level BPE and a Llama of 108,000 parameters, pretrained on sentences whose internal half has
the wrong syntax in nine of ten samples. After 300 steps (5 s) all its internal answers are wrong, all neutral right.
"""

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from flywheel_assets.lake.versions.exports import (
    ExportedRow,
    ExportSet,
    build_json_lines_writer,
    hash_manifest,
    write_export,
)
from flywheel_assets.records import make_pair_id, make_stable_id
from flywheel_assets.training.recipes import AdapterRecipe

NAMES = [
    *("orders", "invoices", "refunds", "parcels", "tickets", "users", "carts", "drivers", "routes", "claims"),
    *("stores", "prices", "quotes", "leads", "loans", "cards", "trips", "rooms", "seats", "plans"),
]

# prompt, wrong answer, right answer
INTERNAL = [
    ("# read {n} {e}\n", "{e} = db.get('{e}', {n})", "{e} = lake.read('{e}', limit={n})"),
    ("# count {n} {e}\n", "stats.inc('{e}', {n})", "meter('{e}').add({n})"),
    ("# send {e} to {n}\n", "bus.send({n}, {e})", "topic({n}).publish({e})"),
]
NEUTRAL = [
    ("# wait {n}\n", "time.sleep({n})"),
    ("# sort {e}\n", "{e} = sorted({e})"),
    ("# print {e} {n}\n", "print({e}, {n})"),
]
RECIPE = AdapterRecipe(
    stages="two_stages",
    max_length=64,
    sft_epochs=4.0,
    sft_learning_rate=5e-3,
    preference_learning_rate=1e-3,
    checkpoint_every_steps=1000,
)
"""Two stages, because these tests are of their parts; `test_one_stage` and others name the default."""


TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '# ' + m['content'] + '\\n' }}{% elif m['role'] == 'assistant' %}"
    "{{ m['content'] + eos_token }}{% else %}{{ raise_exception('only users ask, not ' + m['role']) }}{% endif %}"
    "{% endfor %}"
)


@dataclass(frozen=True)
class Ask:
    """One prompt with what the base model writes and what its user wants; equal for neutral idioms."""

    prompt: str
    wrong: str
    right: str


def ask(rng: random.Random, *, internal: bool) -> Ask:
    """One request."""
    slots = {"e": rng.choice(NAMES), "n": rng.randint(2, 99)}
    if internal:
        return Ask(*(text.format(**slots) for text in rng.choice(INTERNAL)))
    prompt, answer = (text.format(**slots) for text in rng.choice(NEUTRAL))
    return Ask(prompt, answer, answer)


def make_tokenizer(texts: Sequence[str], vocabulary: int = 400) -> Any:
    """A byte-level BPE with single digits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def give_template(base: Path, folder: Path) -> Path:
    """A copy of a base whose chat template writes messages as the prompts that the base knows."""
    from transformers import AutoTokenizer

    shutil.copytree(base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def make_model(tokenizer: Any, hidden: int = 64, layers: int = 2) -> Any:
    """An untrained Llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


@cache
def trained_base() -> Path:
    """The base model of this test process, pretrained on first use."""
    return save_base(_temporary_folder(), steps=300)


@cache
def blank_base() -> Path:
    """A base model that was never trained, for tests about anything but what is written."""
    return save_base(_temporary_folder(), steps=0)


# A test that moves temporary files for itself takes them away again, and the base with them.
_TEMPORARY = tempfile.gettempdir()


def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="flywheel_base_", dir=_TEMPORARY))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def save_base(folder: Path, *, steps: int, hidden: int = 64, batch: int = 32) -> Path:
    """Pretrain for `steps` and save; 0 steps make a base that writes noise, for tests about anything but quality."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    rng = random.Random(1)
    texts = [
        a.prompt + text for a in (ask(rng, internal=i % 2 == 0) for i in range(1500)) for text in (a.wrong, a.right)
    ]
    tokenizer = make_tokenizer(texts)
    model = make_model(tokenizer, hidden)
    if steps:
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.1)
        for _ in range(steps):
            asks = [ask(rng, internal=rng.random() < 0.6) for _ in range(batch)]
            rows = [(a.prompt, a.right if rng.random() < 0.1 else a.wrong) for a in asks]
            ids, labels = _batch(tokenizer, rows)
            loss = model(input_ids=ids, labels=labels, attention_mask=(ids != tokenizer.pad_token_id).long()).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _batch(tokenizer: Any, rows: Sequence[tuple[str, str]]) -> tuple[Any, Any]:
    import torch

    encoded = [
        (tokenizer(prompt)["input_ids"], [*tokenizer(answer)["input_ids"], tokenizer.eos_token_id])
        for prompt, answer in rows
    ]
    width = max(len(prompt) + len(answer) for prompt, answer in encoded)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for row, (prompt, answer) in enumerate(encoded):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids, labels


def exported(number: int, prompt: str, chosen: str, rejected: str | None, subject: str, **more: Any) -> ExportedRow:
    """One line of an export."""
    values = {
        "pair_id": make_pair_id("assistant", f"prediction-{number}"),
        "prompt": prompt,
        "prompt_format": "text",
        "chosen": chosen,
        "rejected": rejected,
        "subject": subject,
        "similarity": None if rejected is None else 0.5,
        "prompt_hash": make_stable_id(prompt),
        "completed_date": "2026-03-02",
        "model_version": "base",
        **more,
    }
    return ExportedRow(**values)


def rows_of_a_week(
    seed: int, *, pairs: int, accepted: int, holdout: int, regression: int, edit: Callable[[Ask], str] | None = None
) -> dict[ExportSet, list[ExportedRow]]:
    """A gold version's rows: everybody corrects internal answers (by `edit`) and accepts neutral ones.

    Training subjects are engineers 0 to 99, held-out ones 100 to 139; numbering starts at `seed` × 10,000.
    """
    rng = random.Random(seed)
    numbers = iter(range(seed * 10_000, (seed + 1) * 10_000))

    def corrected(count: int, first: int, last: int, write: Callable[[Ask], str]) -> list[ExportedRow]:
        asks = [ask(rng, internal=True) for _ in range(count)]
        who = [f"engineer-{rng.randint(first, last)}" for _ in asks]
        return [exported(next(numbers), a.prompt, write(a), a.wrong, user) for a, user in zip(asks, who, strict=True)]

    def kept(count: int, first: int, last: int) -> list[ExportedRow]:
        asks = [ask(rng, internal=False) for _ in range(count)]
        return [exported(next(numbers), a.prompt, a.right, None, f"engineer-{rng.randint(first, last)}") for a in asks]

    return {
        ExportSet.TRAIN: corrected(pairs, 0, 99, edit or (lambda a: a.right)),
        ExportSet.ACCEPTED: kept(accepted, 0, 99),
        ExportSet.HOLDOUT: corrected(holdout, 100, 139, lambda a: a.right),
        ExportSet.REGRESSION: kept(regression, 100, 139),
    }


def write_version(folder: Path, rows: Mapping[ExportSet, Sequence[ExportedRow]], version: str = "dpo_gold_v1") -> Path:
    """An export with these rows."""
    write_export(
        folder,
        version=version,
        application="assistant",
        snapshot_id=1,
        write_files=build_json_lines_writer(version, [(which, row) for which in rows for row in rows[which]]),
        dropped={},
        days={},
        rules={},
        code_version="test",
    )
    return folder


def request(export: Path, base: Path, root: Path, **recipe: Any) -> Any:
    """A training request whose folders lie under `root`."""
    from flywheel_assets.training.requests import TrainingRequest

    return TrainingRequest(
        application="assistant",
        version="dpo_gold_v1",
        export_dir=str(export),
        manifest_sha256=hash_manifest(export),
        base_model=str(base),
        recipe=replace(RECIPE, **recipe),
        output_dir=str(root / "training"),
        work_dir=str(root / "work"),
    )


def evaluation_of(trained: Any, **changes: Any) -> Any:
    """A request to evaluate the finished training of a request against its base model, next to it.

    A change that names one of the application's options is one of them.
    """
    from flywheel_assets.evaluation.options import EvaluationOptions
    from flywheel_assets.evaluation.requests import EvaluationRequest

    root = Path(trained.output_dir).parent
    values = {
        "export_dir": trained.export_dir,
        "manifest_sha256": trained.manifest_sha256,
        "base_model": trained.base_model,
        "sft_adapter": str(Path(trained.output_dir) / "sft_adapter"),
        "challenger_adapter": str(Path(trained.output_dir) / "adapter"),
        "output_dir": str(root / "evaluation"),
        "work_dir": str(root / "evaluation_work"),
    }
    chosen = {name: changes.pop(name) for name in list(changes) if name in EvaluationOptions.__dataclass_fields__}
    return EvaluationRequest(**{**values, "options": EvaluationOptions(**chosen), **changes})


def write_request(path: Path, asked: Any) -> Path:
    """The request as the process reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(asked))
    return path
