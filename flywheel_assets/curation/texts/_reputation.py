"""Measures how far a voice's earlier feedback was taken up: what reviewers and other people made of it.

It bounds influence and gives none: a voice without a history counts in full, one that others contradict counts less.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_assets.curation.arrow import to_mask
from flywheel_assets.curation.texts.breaker import HOSTILE
from flywheel_assets.curation.texts.statements import Role, Verdicts
from flywheel_assets.records import REVIEWER_SOURCE

_AGREEING = (Role.CORRECTION, Role.ACCEPTANCE, Role.COMPARISON, Role.OBJECTION)


def measure_reputation(keys: pa.Table, verdicts: Verdicts) -> npt.NDArray[np.float64]:
    """Measure the reputation of each row's voice, 0 to 1.

    It is (1 + taken up) / (1 + taken up + turned down). *Taken up* are rows that stand although several people, or a
    reviewer, said something about the same output. *Turned down* are rows that others outvoted, and rows that the
    policy refused as hostile. Reviewers have 1.

    Args:
        keys: needs `voice`, `source`, `prediction_id` and `refused_reason`.
        verdicts: of the same rows.
    """
    voice = keys["voice"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    about = keys["prediction_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    said = np.unique(np.stack((about, voice)), axis=1)
    is_shared = np.bincount(said[0], minlength=about.max(initial=0) + 1)[about] > 1
    is_reviewer = to_mask(pc.equal(keys["source"], pa.scalar(REVIEWER_SOURCE)))
    hostile = to_mask(pc.is_in(keys["refused_reason"], pa.array(sorted(HOSTILE))))
    taken_up = is_shared & verdicts.has_role(*_AGREEING)
    turned_down = verdicts.has_role(Role.OUTVOTED) | hostile
    up, down = (np.bincount(voice, weights=each & ~is_reviewer) for each in (taken_up, turned_down))
    reputation: npt.NDArray[np.float64] = ((1 + up) / (1 + up + down))[voice]
    reputation[is_reviewer] = 1.0
    return reputation
