"""Claim: a version of 1,000,000 pairs is cut, with its duplicates and caps, in less memory than its rows would fill.

Data: 1,000,000 curated pairs of 2 KB (prompt 1 KB, the model's and the user's text 0.5 KB each) on 100 closed days, by
20,000 users, of whom 1 % send a fifth; one in ten says again what somebody said on an earlier day, half of these
with one word changed. Ours: `cut_version` of all days: exclusions, supersession, sides, duplicates and near duplicates,
claims, caps, the sample of accepted outputs; then the four files with their sha256, sealed by the manifest. Beside it
what the trigger asks of the same rows. The peer does the core of it as a notebook would: pandas reads the same files,
drops equal pairs, caps each user, splits by the user's hash and writes JSON lines; it knows no near duplicates.

    python -m benchmarks.resolve_pairs [--pairs 1000000] [--folder EMPTY_FOLDER]
"""

import argparse
import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.comparing import compare, timed
from benchmarks.day_to_gold import lake_at
from benchmarks.texts import Texts
from flywheel_assets.curation.likeness.traces import compute_traces
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.daily import ledger
from flywheel_assets.lake.daily.ledger import LedgerEntry, RunStamp
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version, find_pair_ids_to_train
from flywheel_assets.records import ExampleKind, Signal, SubjectKind, make_pair_ids

DAYS, USERS = 100, 20_000
FIRST = date(2026, 3, 1)
REPEATED = 0.1
REMEMBERED = 5000
"""Rows of earlier days that later ones repeat."""
STAMP = RunStamp("benchmark", "1", datetime(2026, 6, 15, tzinfo=UTC))


def build(root: Path, pairs: int) -> None:
    """Write the gold days, as curation would have."""
    lake, texts, random = lake_at(root), Texts(), np.random.default_rng(1)
    per_day = pairs // DAYS
    said = None
    files, days = {}, ledger.list_days(FIRST, FIRST + timedelta(days=DAYS - 1))
    with lake.connect() as connection:
        for number, day in enumerate(days):
            prompt = texts.draw(per_day, 10)
            rejected, chosen = texts.draw_edited(per_day, 5, 2)
            said_now = pa.table({"prompt": prompt, "rejected": rejected, "chosen": chosen})
            if said is not None:
                repeats = int(per_day * REPEATED)
                again = said.take(pa.array(random.integers(0, len(said), repeats)))
                changed = pc.if_else(
                    pa.array(np.arange(repeats) % 2 == 0),
                    again["chosen"],
                    pc.binary_join_element_wise(again["chosen"], "Indeed.", " "),
                )
                again = again.set_column(2, "chosen", changed)
                said_now = pa.concat_tables([said_now.slice(repeats), again])
            if said is None or len(said) < REMEMBERED:
                said = said_now if said is None else pa.concat_tables([said, said_now])
            connection.register("gold", _gold(day, number * per_day, said_now.combine_chunks(), random))
            file = lake.write_day(connection, CURATED_DPO_PAIRS, day, "SELECT * FROM gold")
            assert file is not None
            files[day] = file
    lake.replace_days(CURATED_DPO_PAIRS, days, files, {})
    entries = [LedgerEntry(CURATED_DPO_PAIRS.name, day, True, f"{day}", {}, per_day, per_day, {}) for day in days]
    ledger.record_entries(lake, entries, STAMP)


def _gold(day: date, first: int, said: pa.Table, random: np.random.Generator) -> pa.Table:
    """Pairs of one day in the columns of gold, one in twenty an accepted output."""
    rows = len(said)
    numbers = np.arange(first, first + rows)
    prompt, chosen = (said[name].combine_chunks() for name in ("prompt", "chosen"))
    is_accepted = pa.array(numbers % 20 == 0)
    rejected = pc.if_else(is_accepted, pa.scalar(None, pa.string()), said["rejected"].combine_chunks())
    no_operator = pa.array([""] * rows).dictionary_encode()
    users = (USERS * random.random(rows) ** 3).astype(int)
    ids = pa.array([f"prediction-{number}" for number in numbers.tolist()])
    moment = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    columns = {
        "completed_date": day,
        "pair_id": pa.array(make_pair_ids("assistant", ids.to_pylist())),
        "example_kind": pc.if_else(is_accepted, ExampleKind.ACCEPTED_OUTPUT.value, ExampleKind.PREFERENCE_PAIR.value),
        "feedback_event_id": pc.binary_join_element_wise("event", ids, "-"),
        "prediction_id": ids,
        "feedback_received_date": day,
        "feedback_received_at": moment,
        "occurred_at": moment,
        "signal": pc.if_else(is_accepted, Signal.ACCEPT.value, Signal.EDIT.value),
        "source": "app",
        "model_version": "base",
        "subject": pa.array([f"user-{user}" for user in users.tolist()]),
        "subject_kind": SubjectKind.USER.value,
        "prompt": prompt,
        "prompt_format": "text",
        "chosen": chosen,
        "rejected": rejected,
        "similarity": pc.if_else(is_accepted, pa.scalar(None, pa.float64()), 0.6),
        "policy_version": "benchmark",
        "sampling_probability": 1.0,
        **compute_traces(prompt, prompt, no_operator, chosen, rejected),
    }
    return pa.table(
        [_column(columns.get(column.name), column.type, rows) for column in CURATED_DPO_PAIRS.schema],
        schema=CURATED_DPO_PAIRS.schema,
    )


def _column(value: object, kind: pa.DataType, rows: int) -> pa.Array:
    return value if isinstance(value, pa.Array) else pa.repeat(pa.scalar(value, kind), rows)


def ours(root: Path) -> int:
    """Cut a version; then count as the trigger does."""
    lake = lake_at(root)
    with tempfile.TemporaryDirectory(dir=root) as folder, timed("version cut"):
        manifest = cut_pair_version(lake, Versions(Path(folder), "assistant"), "dpo_gold_v1", ResolutionRules(), "1")
    print(f"    left out: {manifest.dropped}")
    return sum(file.rows for file in manifest.files.values())


def trigger(root: Path) -> int:
    """How many pairs a version cut now would train on."""
    lake = lake_at(root)
    return len(find_pair_ids_to_train(lake, ResolutionRules(), ledger.read_closed_days(lake, CURATED_DPO_PAIRS.name)))


def pandas_notebook(root: Path) -> int:
    """The core of it in pandas, all rows in memory."""
    import pandas as pd

    columns = ["pair_id", "prompt", "chosen", "rejected", "subject", "example_kind", "content_hash"]
    files = sorted((root / "warehouse").rglob("curated_dpo_pairs-*.parquet"))
    gold = pd.concat([pd.read_parquet(file, columns=columns) for file in files], ignore_index=True)
    gold = gold.drop_duplicates("content_hash", keep="last")
    gold = gold[gold.groupby(["example_kind", "subject"]).cumcount() < ResolutionRules().per_user_cap]
    held_out = pd.util.hash_array(gold["subject"].to_numpy()) % 10 == 0
    for name, rows in (("train", gold[~held_out]), ("holdout", gold[held_out])):
        rows.sort_values("pair_id").to_json(root / f"pandas_{name}.jsonl", orient="records", lines=True)
    return len(gold)


def main() -> None:
    """Print wall and CPU seconds, peak memory, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="build here and keep it; measured again where it was built")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        if not (root / "catalog.db").exists():
            root.mkdir(parents=True, exist_ok=True)
            build(root, arguments.pairs)
        compare(root, trigger, pandas_notebook, "pairs")
        compare(root, ours, pandas_notebook, "pairs")


if __name__ == "__main__":
    main()
