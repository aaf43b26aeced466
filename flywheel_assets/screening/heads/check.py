"""Asks the serving head about every chosen text, as a check of the policy.

Whatever goes wrong (no head, another encoder than the head's, a process that dies) leaves the rows in quarantine under
`check_unavailable`. A text that is confidently in a language for which the head has no figures waits as
`unscreened_language`: no answer is no pass. A team that wants such a language to pass unscreened names it.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from flywheel_assets.curation.arrow import values_of
from flywheel_assets.curation.policy.verdicts import Action, Evidence, Hazard, Judgement, Verdict
from flywheel_assets.errors import FlywheelError
from flywheel_assets.ranges import Checked, Count, Name, Positive
from flywheel_assets.records import Reason
from flywheel_assets.screening.heads._language_guess import guess_language
from flywheel_assets.screening.heads.encoder import EncoderProcess, find_encoder
from flywheel_assets.screening.heads.head import Head, read_pieces
from flywheel_assets.screening.heads.store import HeadStore
from flywheel_assets.screening.heads.training import SUITE_LANGUAGE
from flywheel_assets.screening.worker import WorkerError


@dataclass(frozen=True, kw_only=True)
class HeadCheck(Checked):
    """Quarantines texts that the serving head finds harmful (`Policy.outside`)."""

    heads: Path
    """Folder of `flywheel screen`: <home>/screening/<application>."""
    encoder: Path = field(default_factory=find_encoder)
    """Folder of the sentence encoder; default: the installed package's."""
    unscreened: frozenset[str] = frozenset()
    """Languages (ISO 639-1) that pass although the head has no figures for them."""
    threads: Count = 1
    """CPU threads of the encoder's process."""
    timeout_s: Positive = 120.0
    """Of 32 texts; the first time includes loading the encoder."""
    name: Name = "screening_head"
    _encoders: list[EncoderProcess] = field(default_factory=list, repr=False, compare=False)

    @property
    def version(self) -> str:
        """Digest of the serving head and the languages that pass; changes when another head serves."""
        identity = json.dumps([HeadStore(self.heads).find_serving(), sorted(self.unscreened), "1"])
        return hashlib.sha256(identity.encode()).hexdigest()[:12]

    def judge(self, texts: pa.Table) -> Judgement:
        """Judge every chosen text, whole: the worst of its pieces counts."""
        chosen = values_of(texts["chosen"])
        passed = np.zeros(len(chosen), dtype=bool)
        try:
            head = self._load_head()
            probabilities = head.compute_probabilities(read_pieces(chosen, self._open_encoder().encode))
        except (WorkerError, FlywheelError) as error:
            # Messages of ours name files, never texts.
            absent = Verdict(Action.QUARANTINE, Reason.CHECK_UNAVAILABLE, f"{self.name}: {error}")
            return Judgement(passed, dict.fromkeys(range(len(chosen)), absent))
        verdicts: dict[int, Verdict] = {}
        for row, (text, probability) in enumerate(zip(chosen, probabilities.tolist(), strict=True)):
            verdict = self._make_verdict(head, text, probability)
            if verdict is None:
                passed[row] = True
            else:
                verdicts[row] = verdict
        return Judgement(passed, verdicts)

    def close(self) -> None:
        """End the encoder's process, if one runs."""
        while self._encoders:
            self._encoders.pop().close()

    def _make_verdict(self, head: Head, text: str, probability: float) -> Verdict | None:
        language = guess_language(text)
        if language is not None and language not in head.thresholds:
            if language in self.unscreened:
                return None
            detail = f"{self.name}: {language} was not evaluated"
            return Verdict(Action.QUARANTINE, Reason.UNSCREENED_LANGUAGE, detail)
        # No language that is certain: code, a name, a few words. The suite's language has the strictest evidence.
        limit = head.thresholds.get(language or SUITE_LANGUAGE, max(head.thresholds.values(), default=1.0))
        if probability < limit:
            return None
        evidence = Evidence(self.name, Hazard.HARASSMENT, round(probability, 4), "chosen")
        return Verdict(Action.QUARANTINE, Reason.CLASSIFIER, f"{self.name}: {probability:.2f}", (evidence,))

    def _load_head(self) -> Head:
        store = HeadStore(self.heads)
        serving = store.find_serving()
        if serving is None:
            raise WorkerError("no head serves: run `flywheel screen train`, then `flywheel screen list`")
        head = store.load(serving)
        if head.encoder != self._open_encoder().digest:
            raise WorkerError(f"head {serving} was trained with another encoder: run `flywheel screen train`")
        return head

    def _open_encoder(self) -> EncoderProcess:
        if not self._encoders:
            self._encoders.append(EncoderProcess(folder=self.encoder, threads=self.threads, timeout_s=self.timeout_s))
        return self._encoders[0]
