"""Runs any local Hugging Face text-classification model as a check, in a process of its own.

The process is started when the first row has to be judged and ends with this one: model libraries cost seconds and
gigabytes that a code location must not pay, and a crash in them must not take a run along. Every failure leaves the
rows in quarantine under `check_unavailable`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.policy.verdicts import Action, Evidence, Hazard, Judgement, Verdict
from flywheel_assets.ranges import Checked, Count, Name, Positive, PositiveShare
from flywheel_assets.records import Reason
from flywheel_assets.screening.worker import KeptWorker, WorkerError

_PROCESS = "flywheel_assets.screening.local_model_process"


@dataclass(frozen=True, kw_only=True)
class ClassifierCheck(Checked):
    """Quarantines texts that a model finds harmful (`Policy.outside`)."""

    model: Path
    """Folder with config.json, tokenizer and model.safetensors; nothing is downloaded, no pickle is read."""
    harmful: Mapping[str, str]
    """The model's labels that count, each with the hazard that it stands for."""
    threshold: PositiveShare = 0.5
    """Score of a harmful label from which a text waits."""
    rows_at_once: Count = 32
    timeout_s: Positive = 120.0
    """Of one batch; the first one includes loading the model."""
    name: Name = "classifier"
    _workers: dict[Path, KeptWorker[dict[str, float]]] = field(default_factory=dict, repr=False, compare=False)

    def _check_together(self) -> None:
        unknown = sorted(set(self.harmful.values()) - set(Hazard))
        if unknown or not self.harmful:
            valid = f"harmful labels that stand for any of {', '.join(Hazard)}, not for {unknown or 'nothing'}"
            raise self.build_range_error("harmful", dict(self.harmful), valid)

    @property
    def version(self) -> str:
        """Digest of the model's files, the labels and the threshold."""
        identity = json.dumps([_hash_model(self.model), sorted(self.harmful.items()), self.threshold, "1"])
        return hashlib.sha256(identity.encode()).hexdigest()[:12]

    def judge(self, texts: pa.Table) -> Judgement:
        """Score every chosen text, whole: the highest score of any part of it counts."""
        chosen = values_of(texts["chosen"])
        passed = np.zeros(len(chosen), dtype=bool)
        verdicts: dict[int, Verdict] = {}
        broken: str | None = None
        for start in range(0, len(chosen), self.rows_at_once):
            some = chosen[start : start + self.rows_at_once]
            scores: list[dict[str, float]] = []
            if broken is None:
                try:
                    scores = self._compute_scores(some)
                except WorkerError as error:
                    # Not tried again for this batch: a model that cannot be loaded would be loaded for every slice.
                    broken = str(error)
            for offset in range(len(some)):
                if broken is not None:
                    detail = f"{self.name}: {broken}"
                    verdicts[start + offset] = Verdict(Action.QUARANTINE, Reason.CHECK_UNAVAILABLE, detail)
                elif verdict := self._make_verdict(scores[offset]):
                    verdicts[start + offset] = verdict
                else:
                    passed[start + offset] = True
        return Judgement(passed, verdicts)

    def close(self) -> None:
        """End the process, if one runs."""
        for worker in self._workers.values():
            worker.close()

    def _make_verdict(self, scores: Mapping[str, float]) -> Verdict | None:
        found = tuple(
            Evidence(self.name, hazard, round(scores[label], 4), "chosen")
            for label, hazard in sorted(self.harmful.items())
            if scores[label] >= self.threshold
        )
        if not found:
            return None
        detail = ", ".join(f"{self.name}: {evidence.category} {evidence.score:.2f}" for evidence in found)
        return Verdict(Action.QUARANTINE, Reason.CLASSIFIER, detail, found)

    def _compute_scores(self, texts: list[str]) -> list[dict[str, float]]:
        with self._worker.open() as process:
            scores = process.ask(texts, self.timeout_s)
        missing = sorted({label for label in self.harmful for each in scores if label not in each})
        if missing:
            raise WorkerError(f"has no label {', '.join(missing)}; it has {', '.join(sorted(scores[0]))}")
        return scores

    @property
    def _worker(self) -> KeptWorker[dict[str, float]]:
        made = KeptWorker(_PROCESS, self.model, [], dict[str, float], "model", "the classifier check")
        # Of threads that come first at once all get the same one: making it starts no process.
        return self._workers.setdefault(self.model, made)


@cache
def _hash_model(model: Path) -> str:
    """Hash names and contents of the model's files with sha256; a missing folder gets a fixed word."""
    if not (model / "config.json").is_file():
        return "absent"
    digest = hashlib.sha256()
    for file in sorted(path for path in model.iterdir() if path.is_file()):
        digest.update(file.name.encode() + b"\0")
        with open(file, "rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
