"""Reads what a base model's folder says about its tokenizer and chat template, without a model library.

`flywheel doctor`, the cut and the training trigger ask here. A model that is no folder is an id on the hub; its files
are not looked up, so its fingerprint is that of the id.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.storage.files import hash_file

_VOCABULARY = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken")
_READ_BY_TOKENIZERS = (
    *_VOCABULARY,
    "tokenizer_config.json",
    "config.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template*",
    "additional_chat_templates/*",
)
PLAIN_TURNS = "messages become plain turns: `role: content`, an empty line, then `assistant:` and a line break"

SET_A_TEMPLATE = (
    "If serving uses a chat template, save it as chat_template.jinja in the base model's folder; the next version is "
    "then judged and trained with it"
)


@dataclass(frozen=True)
class BaseModelFiles:
    """Says where a base model comes from, and which file holds its chat template."""

    is_local: bool
    """False: an id on the hub, whose files are read when it is first needed."""
    chat_template: str | None
    """The name of a file of its folder; None: it has no template, or comes from the hub."""


def examine_base_model(base_model: str) -> BaseModelFiles:
    """Find the tokenizer and the chat template of a base model.

    Args:
        base_model: path, or hub id.

    Raises:
        SettingsError: it is a path where nothing is, or a folder without configuration, tokenizer or weights.
    """
    folder = Path(base_model)
    if not folder.exists():
        if folder.is_absolute() or base_model.startswith((".", "~")):
            raise SettingsError(f"base model {base_model} does not exist; valid: a model's folder, or an id on the hub")
        return BaseModelFiles(is_local=False, chat_template=None)
    needed = {"config.json": ("config.json",), "a tokenizer (tokenizer.json)": _VOCABULARY}
    needed["weights (*.safetensors)"] = ("*.safetensors",)
    if lacks := [what for what, patterns in needed.items() if not _list_files(folder, patterns)]:
        raise SettingsError(
            f"{folder} is no model of transformers: it lacks {', '.join(lacks)}. Save the base model there with "
            "`save_pretrained`, its tokenizer as well"
        )
    return BaseModelFiles(is_local=True, chat_template=_find_chat_template(folder))


def fingerprint_tokenizer(base_model: str) -> str:
    """Return a sha256 of the files that decide how texts are encoded.

    Where the folder lies is no part of it.
    """
    folder = Path(base_model)
    if not folder.is_dir():
        return hashlib.sha256(f"hub {base_model}".encode()).hexdigest()
    lines = "".join(f"{path.relative_to(folder)} {_hash(path)}\n" for path in _list_files(folder, _READ_BY_TOKENIZERS))
    return hashlib.sha256(lines.encode()).hexdigest()


def _find_chat_template(folder: Path) -> str | None:
    # In the order in which transformers looks.
    for name in ("chat_template.jinja", "chat_template.json"):
        if (folder / name).exists():
            return name
    config = folder / "tokenizer_config.json"
    try:
        found = json.loads(config.read_bytes()) if config.exists() else {}
    except ValueError:
        raise SettingsError(f"{config} is no JSON; save the base model's tokenizer again") from None
    return config.name if isinstance(found, dict) and found.get("chat_template") else None


def _list_files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _hash(path: Path) -> str:
    stat = path.stat()
    return _hash_unless_known(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _hash_unless_known(path: Path, _modified_ns: int, _bytes: int) -> str:
    # The training trigger asks at every tick, and a tokenizer has some ten megabytes.
    return hash_file(path)
