"""A check of the policy that a test answers for."""

from dataclasses import dataclass

import pyarrow as pa

from flywheel_assets.curation.policy.verdicts import Judgement


@dataclass(frozen=True)
class Judge:
    """A check whose answer, or failure, a test chooses."""

    answer: Judgement | Exception
    name: str = "judge"
    version: str = "1"

    def judge(self, texts: pa.Table) -> Judgement:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
