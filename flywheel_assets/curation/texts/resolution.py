"""Resolves gold rows into a version: one per prediction, no duplicates, capped influence, a holdout that never moves.

The steps, in this order; each dropped row is counted under the reason of the first step that drops it.

0. Verdicts. All statements about a prediction become each person's verdict, and these one verdict (see `statements`).
   Of each prediction one example stays, and of each two answers that were compared.
1. Waiting. Waiting rows (small edits, changed facts) leave unless enough subjects of all days say the same: the people
   who made another correction of the same output count as well.
2. Sides. A subject whose hash falls below `holdout_share` is held out, with all rows it has or will ever have. With
   `cross_fit_folds` the rows are resolved once for each fold, whose users are held out, and once with everyone learnt.
3. Duplicates. Rows of one side and kind that say the same (see `likeness`) are one: the most trusted newest wins, and
   the number of subjects who sent it is kept as `support_users`: evidence, never a weight. At the end every held-out
   row learns how near the nearest prompt is that the version trains on.
4. Claims. Pairs of one voice that repeat what no other voice says leave until a second one says it, and of what few
   say again and again only a share stays (see `_influence`).
5. Caps, per kind. A person brings at most `per_user_cap` rows and `per_user_ratio` of them; all who are not vouched for
   share `anonymous_cap_per_source` per sender, imports without limit. Both shrink with a voice's reputation. No sender
   and no prompt is most of a version. The hash in `pair_id` decides which rows stay, of each cap as if it were the only
   one.

A *voice* is a person who is vouched for, or all that is merely claimed through one key (see `voices`).
6. Accepted outputs. The held-out ones are the regression set; of the others a sample by hash is mixed into training.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Le

from flywheel_assets.curation.arrow import Array, ChunkedArray, Column, to_mask, values_of
from flywheel_assets.curation.likeness.duplicates import (
    Likeness,
    find_clusters,
    find_nearest,
    is_import,
    mark_repeated_rows,
    rank_by_trust,
)
from flywheel_assets.curation.texts._influence import ClaimLimits, mark_beyond_share, mark_claims, rank_by_pair_id
from flywheel_assets.curation.texts._reputation import measure_reputation
from flywheel_assets.curation.texts.statements import STATEMENT_KEYS, Agreement, Role, reduce_statements
from flywheel_assets.curation.texts.voices import identify_voices
from flywheel_assets.curation.texts.waiting import (
    SUPPORT_KEYS,
    SUPPORTERS_NEEDED,
    explain_admission,
    mark_unsupported_rows,
)
from flywheel_assets.ranges import Checked, Count, NotNegative, Share
from flywheel_assets.records import REVIEWER_SOURCE, ExampleKind, Reason

RESOLVED_COLUMNS = [
    pa.field(name, kind, nullable=name == "nearest_training", metadata={"description": description})
    for name, kind, description in (
        (
            "inclusion_probability",
            pa.float64(),
            "with which resolution kept the row; 1 for all but the sampled accepted outputs",
        ),
        (
            "admitted_as",
            pa.string(),
            "the example's kind | confirmed_comparison | recurring_small_edit | confirmed_fact",
        ),
        ("support_users", pa.int64(), "distinct subjects who sent nearly this row: evidence, never a training weight"),
        (
            "nearest_training",
            pa.float64(),
            "of a held-out row: similarity, 0.8 to 1, to the nearest prompt that this version trains on; null: none",
        ),
    )
]
"""Columns that resolution adds to its rows."""

MOST_FOLDS = 10
"""Of a cross-fit; ten leave nine tenths of the users to each fold's model."""
_LEAST_OF_USER = 20
"""Rows that the relative caps leave to every group."""
ROWS_AT_ONCE = 65_536
"""Rows per chunk of the result: far fewer than would fill Arrow's 32-bit offsets."""

_KEYS = [
    *STATEMENT_KEYS,
    "signature",
    "support_key",
    "prompt_hash",
    "added_ngrams",
    "added_words",
    "refused_reason",
    "feedback_received_date",
    "request_hash",
    "request_signature",
    "anchors",
]


@dataclass(frozen=True)
class ResolutionRules(Checked):
    """Limits the rows of gold in one version, per user, source and prompt."""

    per_user_cap: Count = 100
    """Most rows of each kind from one signed-in user: about 250 poisoned rows are enough to plant a behaviour."""
    anonymous_cap_per_source: Count = 1000
    """Most rows of each kind from all people without a user id, per source; imports are exempt."""
    per_user_ratio: Share = 0.05
    """Largest share of the rows of each kind from one signed-in user, or four even shares; 20 rows are always in."""
    per_source_ratio: Share = 0.25
    """Largest share from one source (imports and reviewers aside), or four even shares: up to four are not capped."""
    per_prompt_cap: Count = 20
    """Most preference pairs with one prompt (context and request, normalized), or four even shares if more."""
    per_request_ratio: Share = 0.25
    """Largest share of the pairs with one request, whatever its context: of many documents "sum this up" is asked."""
    novel_claim_pairs: Count = 5
    """One voice may add the same new words in fewer pairs than this; with more they wait for a second one."""
    newcomer_days: Count = 10
    """People who first come within so many days of each other, and then say one thing, support it as one."""
    repeated_claim_ratio: Share = 0.0015
    """Of all pairs, the share that each person who makes a claim may repeat it in, behind the first time."""
    newcomer_claim_ratio: Share = 0.0125
    """The same for all who come at one time together, however many."""
    holdout_share: Share = 0.10
    """Share of subjects that are never trained on. Changing it moves subjects between the sides."""
    cross_fit_folds: Annotated[int, Ge(2), Le(MOST_FOLDS)] | None = None
    """For a team with too few users to hold any out: each user is judged by the model of a fold that has not seen them,
    and the deployed model learns from all. In place of `holdout_share`; costs a training for each fold."""
    accepted_share: Share = 0.01
    """Share of accepted outputs mixed into training."""
    accepted_min_ratio: NotNegative = 0.10
    """At least this many accepted outputs per training pair, while there are enough: they protect what works."""
    agreement: Agreement = Agreement.MAJORITY
    """The rule between people who disagree about one output."""
    confirmed_objections: bool = False
    """Objections that a reviewer confirmed are exported, for recipes that learn from unpaired rejections."""

    def describe(self) -> dict[str, Any]:
        """Describe the rules for a version's manifest, without a rule that decides nothing for it."""
        described = asdict(self)
        # A version with a holdout has the manifest that it had before there were folds, byte for byte.
        del described["cross_fit_folds" if self.cross_fit_folds is None else "holdout_share"]
        return described


@dataclass(frozen=True)
class Resolution:
    """The rows of one version: the given columns and RESOLVED_COLUMNS, sorted by `pair_id`."""

    train: pa.Table
    """Preference pairs and comparisons to train on."""
    holdout: pa.Table
    """Preference pairs, comparisons and demonstrations of held-out subjects."""
    accepted: pa.Table
    """Sampled accepted outputs to mix into training."""
    regression: pa.Table
    """Accepted outputs of held-out subjects."""
    demonstrations: pa.Table
    """Right answers to train on where no model wrote one; `rejected` is null."""
    objections: pa.Table
    """Outputs that a reviewer confirmed as wrong; empty unless the rules ask for them."""
    dropped: dict[str, int]
    """Rows left out, by reason code; with the six tables it accounts for every input row."""


def resolve(gold: pa.Table, rules: ResolutionRules, fold: int | None = None) -> Resolution:
    """Resolve gold rows of any days into one version; independent of their order.

    Args:
        gold: columns of CURATED_DPO_PAIRS. All but the three texts are enough: nothing is decided by a text, and
            without them a million rows are 0.6 GB instead of 2.7.
        rules: how much one version takes, and from whom.
        fold: of a cross-fit, from 1, whose users are held out; None: with folds no user is.
    """
    rows = _Remaining(_append_voices(gold.select(_KEYS)))
    _keep_verdicts(rows, rules)

    is_accepted = pc.equal(rows.keys["example_kind"], pa.scalar(ExampleKind.ACCEPTED_OUTPUT.value))
    rows.keys = rows.keys.append_column("is_accepted", is_accepted)
    rows.keys = rows.keys.append_column("is_held_out", pa.array(_mark_held_out(rows.keys["subject"], rules, fold)))
    sides = 2 * to_mask(rows.keys["is_held_out"]).astype(np.int64) + to_mask(rows.keys["is_accepted"])
    sides += 4 * _number_kinds(rows.keys["example_kind"])
    cluster = find_clusters(Likeness.read(rows.keys), sides, rank_by_trust(rows.keys))
    rows.keys = rows.keys.append_column("cluster", pa.array(cluster))
    repeated = mark_repeated_rows(rows.keys, ["cluster"])
    rows.keys = rows.keys.append_column("support_users", _count_support_users(rows.keys, repeated))
    # Before duplicates leave: a user whose row is a duplicate supports the claim as well.
    alone = mark_claims(rows.keys, _read_claim_limits(rules))
    equal = mark_repeated_rows(rows.keys, ["is_held_out", "is_accepted", "content_hash"]) & repeated
    rows.drop_first((equal, Reason.DUPLICATE), (repeated, Reason.NEAR_DUPLICATE), (alone, Reason.UNSUPPORTED_CLAIM))
    rows.drop_first(*_mark_beyond_caps(rows.keys, rules))

    _drop_held_out_objections(rows)
    accepted, held_out = to_mask(rows.keys["is_accepted"]), to_mask(rows.keys["is_held_out"])
    probability = np.ones(len(accepted))
    pool = np.flatnonzero(accepted & ~held_out)
    train_pairs = int((~accepted & ~held_out & (_number_kinds(rows.keys["example_kind"]) == 0)).sum())
    sampled, probability[pool] = _sample_accepted(rows.keys["prediction_id"].take(pool), train_pairs, rules)
    left_out = np.zeros(len(accepted), dtype=bool)
    left_out[pool[~sampled]] = True
    rows.drop_first((left_out, Reason.NOT_SAMPLED))

    accepted, held_out, probability = accepted[~left_out], held_out[~left_out], probability[~left_out]
    nearest = np.full(len(held_out), np.nan)
    nearest[held_out] = find_nearest(
        Likeness.read(rows.keys), rows.keys["prompt_hash"], np.flatnonzero(held_out), np.flatnonzero(~held_out)
    )
    rows.keys = rows.keys.append_column("nearest_training", pa.array(nearest, from_pandas=True))
    kinds = _number_kinds(rows.keys["example_kind"])
    learnt, unpaired = ~accepted & ~held_out, kinds > 0
    return Resolution(
        train=_copy_rows(gold, rows, learnt & ~unpaired, probability),
        holdout=_copy_rows(gold, rows, ~accepted & held_out, probability),
        accepted=_copy_rows(gold, rows, accepted & ~held_out, probability),
        regression=_copy_rows(gold, rows, accepted & held_out, probability),
        demonstrations=_copy_rows(gold, rows, learnt & (kinds == 1), probability),
        objections=_copy_rows(gold, rows, learnt & (kinds == 2), probability),
        dropped=dict(sorted(rows.dropped.items())),
    )


def _append_voices(keys: pa.Table) -> pa.Table:
    """Append each row's voice, and the days of its receipt and of the voice's first and last row.

    Days are numbers since 1970.
    """
    voices = identify_voices(keys)
    day = keys["feedback_received_date"].cast(pa.int32()).to_numpy().astype(np.int64)
    number = voices.numbers
    first, last = np.full(len(keys), np.iinfo(np.int64).max), np.zeros(len(keys), np.int64)
    np.minimum.at(first, number, day)
    np.maximum.at(last, number, day)
    columns: dict[str, Array] = {
        "voice": voices.name,
        "sender": voices.sender,
        "is_person": pa.array(voices.is_person),
        "received_day": pa.array(day),
        "first_day": pa.array(first[number]),
        "last_day": pa.array(last[number]),
    }
    for name, values in columns.items():
        keys = keys.append_column(name, values)
    return keys


def _read_claim_limits(rules: ResolutionRules) -> ClaimLimits:
    return ClaimLimits(
        pairs_of_one=rules.novel_claim_pairs,
        newcomer_days=rules.newcomer_days,
        ratio_of_person=rules.repeated_claim_ratio,
        ratio_of_newcomers=rules.newcomer_claim_ratio,
        most_of_person=rules.per_user_cap,
    )


_UNPAIRED = (ExampleKind.DEMONSTRATION.value, ExampleKind.OBJECTION.value)


def _number_kinds(example_kind: ChunkedArray) -> npt.NDArray[np.int64]:
    """Number each row's kind: 1 for a demonstration, 2 for an objection, 0 for any other."""
    numbers: npt.NDArray[np.int64] = pc.index_in(example_kind, pa.array(_UNPAIRED)).fill_null(-1).to_numpy() + 1
    return numbers.astype(np.int64)


def _keep_verdicts(rows: "_Remaining", rules: ResolutionRules) -> None:
    """Keep the examples that verdicts admit, and of those that wait the supported ones."""
    verdicts = reduce_statements(rows.keys, rules.agreement)
    rows.keys = rows.keys.append_column("reputation", pa.array(measure_reputation(rows.keys, verdicts)))
    rows.keys = rows.keys.append_column("is_winner_accepted", pa.array(verdicts.is_winner_accepted))
    counted = [Role.CORRECTION, Role.ACCEPTANCE, Role.COMPARISON]
    counted += [Role.OBJECTION] if rules.confirmed_objections else []
    wins = verdicts.has_role(*counted)
    held = rows.keys["held_reason"]
    waiting = np.flatnonzero(verdicts.is_current & held.is_valid().to_numpy())
    waits = np.zeros(len(wins), dtype=bool)
    waits[waiting] = mark_unsupported_rows(rows.keys.select(SUPPORT_KEYS).take(waiting))
    rows.drop_first(
        *((verdicts.has_role(role), Reason(role.value)) for role in Role if role not in (*counted, Role.OBJECTION)),
        (~wins, Reason.STATEMENT),
        *(
            (waits & to_mask(pc.equal(held, pa.scalar(reason)).fill_null(False)), Reason(reason))
            for reason in SUPPORTERS_NEEDED
        ),
    )


def _drop_held_out_objections(rows: "_Remaining") -> None:
    held_out = to_mask(rows.keys["is_held_out"]) & (_number_kinds(rows.keys["example_kind"]) == 2)
    rows.drop_first((held_out, Reason.STATEMENT))


def _mark_beyond_caps(keys: pa.Table, rules: ResolutionRules) -> list[tuple[npt.NDArray[np.bool_], Reason]]:
    is_user, reputation = to_mask(keys["is_person"]), keys["reputation"].to_numpy()
    is_capped = ~to_mask(is_import(keys["source"]))
    of_user = rank_by_pair_id(keys, ["is_accepted", "voice"], is_user) >= rules.per_user_cap * reputation
    shares_cap = ~is_user & is_capped
    place = rank_by_pair_id(keys, ["is_accepted", "sender"], shares_cap)
    of_crowd = place >= rules.anonymous_cap_per_source * reputation
    is_pair = ~to_mask(keys["is_accepted"])
    from_people = is_capped & ~to_mask(pc.equal(keys["source"], pa.scalar(REVIEWER_SOURCE)))
    return [
        (is_user & of_user, Reason.USER_CAP),
        (mark_beyond_share(keys, "voice", is_user, rules.per_user_ratio, _LEAST_OF_USER), Reason.USER_CAP),
        (shares_cap & of_crowd, Reason.ANONYMOUS_CAP),
        (mark_beyond_share(keys, "sender", from_people, rules.per_source_ratio, _LEAST_OF_USER), Reason.SOURCE_CAP),
        (mark_beyond_share(keys, "prompt_hash", is_pair & is_capped, 0.0, rules.per_prompt_cap), Reason.PROMPT_CAP),
        (
            mark_beyond_share(keys, "request_hash", is_pair & is_capped, rules.per_request_ratio, rules.per_prompt_cap),
            Reason.PROMPT_CAP,
        ),
    ]


class _Remaining:
    """The key columns of the rows still in, their numbers in the input, and the count of those that left."""

    def __init__(self, keys: pa.Table) -> None:
        self.keys = keys
        self.numbers = np.arange(len(keys))
        self.dropped: dict[str, int] = {}

    def drop_first(self, *leaving: tuple[npt.NDArray[np.bool_], Reason]) -> None:
        """Let rows leave, each under the first reason that holds for it."""
        gone = np.zeros(len(self.keys), dtype=bool)
        for each, reason in leaving:
            if count := int((each & ~gone).sum()):
                self.dropped[reason.value] = self.dropped.get(reason.value, 0) + count
            gone |= each
        self.keep(~gone)

    def keep(self, staying: npt.NDArray[np.bool_]) -> None:
        if not staying.all():
            self.keys = self.keys.filter(pa.array(staying))
            self.numbers = self.numbers[staying]


def _count_support_users(keys: pa.Table, repeated: npt.NDArray[np.bool_]) -> Array:
    """Count the distinct voices that sent a row of each row's cluster, on any day."""
    counts = np.ones(len(keys), dtype=np.int64)
    several = np.isin(keys["cluster"].to_numpy(), keys["cluster"].to_numpy()[repeated])
    rows = np.flatnonzero(several)
    few = keys.select(["cluster", "voice"]).take(rows).to_pylist()
    people: dict[int, set[str]] = {}
    for row in few:
        people.setdefault(row["cluster"], set()).add(row["voice"])
    counts[rows] = [len(people[row["cluster"]]) for row in few]
    return pa.array(counts)


def hash_for_holdout(subjects: Iterable[str]) -> npt.NDArray[np.float64]:
    """Hash each subject to the number in [0, 1) below whose `holdout_share` it is held out."""
    return _hash_fractions("holdout", subjects)


def find_folds(subjects: Iterable[str], folds: int) -> npt.NDArray[np.int64]:
    """Find the fold of each subject, from 1: the same in every version with as many folds."""
    return 1 + np.floor(folds * hash_for_holdout(subjects)).astype(np.int64)


def _mark_held_out(subjects: ChunkedArray, rules: ResolutionRules, fold: int | None) -> npt.NDArray[np.bool_]:
    codes = subjects.combine_chunks().dictionary_encode()
    distinct = values_of(codes.dictionary)
    if rules.cross_fit_folds is None:
        is_out = hash_for_holdout(distinct) < rules.holdout_share
    else:
        is_out = find_folds(distinct, rules.cross_fit_folds) == fold
    chosen: npt.NDArray[np.bool_] = is_out[codes.indices.to_numpy()]
    return chosen


def _sample_accepted(
    prediction_ids: ChunkedArray, train_pairs: int, rules: ResolutionRules
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Draw the accepted outputs that join the training; also return each one's probability to be drawn.

    The lowest hashes win: all below `accepted_share`, or as many as `accepted_min_ratio` asks for, if that is more.
    """
    fractions = _hash_fractions("accepted", values_of(prediction_ids))
    by_share = fractions < rules.accepted_share
    wanted = math.ceil(rules.accepted_min_ratio * train_pairs)
    if wanted <= by_share.sum():
        return by_share, np.full(len(fractions), rules.accepted_share)
    sampled = np.zeros(len(fractions), dtype=bool)
    sampled[np.argsort(fractions, kind="stable")[:wanted]] = True
    return sampled, np.full(len(fractions), max(rules.accepted_share, sampled.sum() / max(1, len(fractions))))


def _hash_fractions(purpose: str, values: Iterable[str]) -> npt.NDArray[np.float64]:
    """Hash each value to a number in [0, 1); another `purpose` gives independent numbers."""
    common = hashlib.blake2b(f"{purpose}:".encode(), digest_size=8)
    digests = bytearray()
    for value in values:
        digest = common.copy()
        digest.update(value.encode())
        digests += digest.digest()
    # 53 bits: what a float holds exactly, so that no hash is rounded up to 1.
    fractions: npt.NDArray[np.float64] = (np.frombuffer(bytes(digests), ">u8") >> np.uint64(11)) / 2.0**53
    return fractions


def _copy_rows(
    gold: pa.Table, rows: _Remaining, members: npt.NDArray[np.bool_], probability: npt.NDArray[np.float64]
) -> pa.Table:
    selected = np.zeros(len(gold), dtype=bool)
    selected[rows.numbers[members]] = True
    chosen = gold.filter(pa.array(selected))
    added: tuple[Column, ...] = (
        pa.array(probability[members]),
        explain_admission(
            chosen["example_kind"], chosen["held_reason"], to_mask(rows.keys["is_winner_accepted"])[members]
        ),
        rows.keys["support_users"].filter(pa.array(members)),
        rows.keys["nearest_training"].filter(pa.array(members)),
    )
    for field, values in zip(RESOLVED_COLUMNS, added, strict=True):
        chosen = chosen.append_column(field, values)
    # Sorting copies whole columns, and a column of more than 2 GB needs 64-bit offsets while it does.
    schema = chosen.schema
    wide = pa.schema([field.with_type(pa.large_string()) if field.type == pa.string() else field for field in schema])
    ordered = chosen.cast(wide).take(pc.sort_indices(chosen["pair_id"]))
    parts = [ordered.slice(start, ROWS_AT_ONCE).cast(schema) for start in range(0, len(ordered), ROWS_AT_ONCE)]
    return pa.concat_tables([schema.empty_table(), *parts])
