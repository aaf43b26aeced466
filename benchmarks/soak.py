"""Months of operation in minutes: capture, daily steps, versions, erasures and upkeep under random kills.

Claim: whatever is killed, every acknowledged event is in the raw table once (an erased person's in none), every version
verifies, capture's memory stays what it was, a day adds as many files at the end as at the beginning, and the last
backup is restored elsewhere with the same rows.
Data: simulated days with 240 edits each by 40 people; a version every tenth day, an erasure every fifteenth, upkeep
every seventh, a backup every fifth. Capture is a process of its own that is killed on every third day while it answers
a request. Each daily step, cut, erasure, upkeep and backup is a process that is killed at a random moment with
probability .3, and run again.
On every twentieth day capture's clock stands at 1972 or 2095 for one request.
Peer: none; a log of days, for a person to read.
Command: python -m benchmarks.soak [--days 120] [--seed 1] [--log soak.jsonl]
"""

import argparse
import json
import multiprocessing
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import psutil

from flywheel_assets.capture.clock import open_clock
from flywheel_assets.capture.service import running_capture
from flywheel_assets.cli.homes import build_backup_source, build_restore_target
from flywheel_assets.curation.texts.resolution import ResolutionRules
from flywheel_assets.lake.erasure.erase import Place, erase_person, plan_erasure
from flywheel_assets.lake.landing.disk import DiskLanding
from flywheel_assets.lake.tables.specs import PREFERENCE_TABLES, RAW_PREDICTIONS
from flywheel_assets.lake.upkeep.backup.place import BackupPlace
from flywheel_assets.lake.upkeep.backup.restoring import choose_backup, restore_backup
from flywheel_assets.lake.upkeep.backup.taking import take_backup
from flywheel_assets.lake.upkeep.maintenance import MaintenanceRules, maintain_tables
from flywheel_assets.lake.versions.folders import Versions
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.lake.versions.verification import verify_versions
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import APPLICATION
from flywheel_assets_tests.lake.workbench import Workbench, landing_of, stamp

START = date(2026, 3, 2)
EDITS, PEOPLE, BATCH = 240, 40, 60
WINDOW_DAYS = 7
KILLED = 0.3
_NOON = time_of_day(12)

spawned = multiprocessing.get_context("forkserver")
spawned.set_forkserver_preload(["__main__", "flywheel_assets.lake.tables.iceberg", "pyiceberg.io.pyarrow"])


def open_bench(root: Path) -> Workbench:
    """Open the application's files."""
    return Workbench(root, start=START)


def serve(root: Path, told: Connection, moment: Any) -> None:
    """Run capture by the clock of `moment` (seconds since 1970) until the process ends."""
    clock = open_clock(root / "landing", accepts_any=False, wall=lambda: datetime.fromtimestamp(moment.value, UTC))
    with running_capture(root / "landing", [APPLICATION], clock) as running:
        told.send(running.url)
        while told.poll(None):
            told.recv()
            running.seal()
            told.send("sealed")


class Capture:
    """The capture process, started again after each kill."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.moment = spawned.Value("d", datetime.combine(START, _NOON, UTC).timestamp())
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.told, theirs = spawned.Pipe()
        self.process = spawned.Process(target=serve, args=(self.root, theirs, self.moment), daemon=True)
        self.process.start()
        self.url = self.told.recv()

    def seal(self) -> None:
        """Seal every open segment."""
        self.told.send("seal")
        self.told.recv()

    @property
    def memory_mib(self) -> float:
        """Return its resident memory."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 2**20)


def send_day(capture: Capture, on: date, rng: random.Random, *, is_killed: bool) -> tuple[dict[str, str], int]:
    """Send a day's edits in batches; where asked, capture is killed while it answers one.

    Returns:
        The ids that were acknowledged with their users, and the number of kills.
    """
    capture.moment.value = datetime.combine(on, _NOON, UTC).timestamp()
    acknowledged: dict[str, str] = {}
    kills, dies_at = 0, rng.randrange(1, EDITS // BATCH) if is_killed else -1
    for batch in range(EDITS // BATCH):
        names = [f"{on}-{batch * BATCH + number}" for number in range(BATCH)]
        events = [
            {
                "id": name,
                "prompt": f"How is valve {name} set?",
                "original_llm_output": f"Turn valve {name} by hand, then wait.",
                "final_user_edit": f"Close valve {name} with key {rng.randrange(10**6)}, and note the pressure.",
                "user_id": f"user {rng.randrange(PEOPLE)}",
            }
            for name in names
        ]
        if batch == dies_at:
            threading.Timer(rng.uniform(0.0, 0.05), capture.process.kill).start()
        with suppress(httpx.TransportError):
            answer = httpx.post(f"{capture.url}/v1/{APPLICATION}/edits", json=events, timeout=60)
            if answer.status_code == 202:
                users = {each["id"]: each["user_id"] for each in events}
                accepted = (each["id"] for each in answer.json()["results"] if each["status"] == "accepted")
                acknowledged |= {each: users[each] for each in accepted}
        if batch == dies_at:
            capture.process.join()
            capture.start()
            kills += 1
    return acknowledged, kills


def run_killed(rng: random.Random, target: Callable[..., None], *arguments: Any) -> int:
    """Run work in a process that may be killed at a random moment, until it has ended well; return the kills."""
    kills = 0
    while True:
        process = spawned.Process(target=target, args=arguments)
        process.start()
        if rng.random() < KILLED and kills < 5:
            process.join(rng.uniform(0.05, 2.5))
            if process.is_alive():
                process.kill()
                process.join()
                kills += 1
                continue
        process.join()
        if process.exitcode == 0:
            return kills
        raise SystemExit(f"{target.__name__} ended with {process.exitcode}")


def make_days(root: Path, days: list[date], now: datetime) -> None:
    """Ingest, join and curate days."""
    bench = open_bench(root)
    bench.ingest_both(days, now)
    bench.join(days)
    bench.curate(days)


def cut(root: Path, version: str) -> None:
    """Cut a version."""
    bench = open_bench(root)
    versions = Versions(root / "versions", APPLICATION)
    cut_pair_version(bench.lake, versions, version, ResolutionRules(holdout_share=0.2), "soak")


def erase(root: Path, person: str, now: datetime) -> None:
    """Erase a person."""
    bench = open_bench(root)
    place = Place(
        bench.lake, PREFERENCE_TABLES, Versions(root / "versions", APPLICATION), landing_of(bench), bench.start, {}
    )
    erase_person(place, plan_erasure(place, person), who="soak", reason="asked", now=now, grace=timedelta(0))


def maintain(root: Path, now: datetime) -> None:
    """Do the weekly upkeep."""
    bench = open_bench(root)
    versions, landing = Versions(root / "versions", APPLICATION), DiskLanding(bench.landing)
    rules = MaintenanceRules(grace_hours=0)
    maintain_tables(bench.lake, PREFERENCE_TABLES, versions, landing, bench.window, rules, stamp(now))


def back_up(root: Path, to: Path) -> None:
    """Back up the home, while capture runs."""
    source = build_backup_source(open_stores(root))
    take_backup(source, BackupPlace.open(str(to), {}), now=datetime.now(UTC), keep=3)


def restore(source: Path, to: Path) -> int:
    """Restore the newest backup to another place; return the raw predictions there."""
    place = BackupPlace.open(str(source), {})
    target = build_restore_target(open_stores(to), dagster_home=to / "dagster")
    done = restore_backup(place, choose_backup(place, None), target)
    if done.differences:
        raise SystemExit(f"the restored home differs: {done.differences[:3]}")
    return sum(open_bench(to).lake.count_rows_per_day(RAW_PREDICTIONS).values())


def open_stores(root: Path) -> Stores:
    """Open a home by settings of its own."""
    return Stores(isolate_settings(root))


def count_files(root: Path) -> dict[str, int]:
    """Count the files that hold rows, and all others."""
    files = [path for path in root.rglob("*") if path.is_file()]
    rows = [path for path in files if path.suffix in (".parquet", ".jsonl")]
    return {"row_files": len(rows), "other_files": len(files) - len(rows)}


def check_end(root: Path, acknowledged: dict[str, str], erased: Mapping[str, date]) -> dict[str, int]:
    """Compare what was acknowledged with what the raw table holds; an erased person's later events are new ones."""
    bench = open_bench(root)
    held = bench.lake.read(RAW_PREDICTIONS, columns=["prediction_id"])["prediction_id"].to_pylist()
    gone = {
        name
        for name, user in acknowledged.items()
        if user in erased and date.fromisoformat(name.rpartition("-")[0]) <= erased[user]
    }
    differences = verify_versions(bench.lake, Versions(root / "versions", APPLICATION), bench.tables.gold).differences
    return {
        "acknowledged": len(acknowledged),
        "erased": len(gone),
        "rows": len(held),
        "doubled": len(held) - len(set(held)),
        "missing": len(set(acknowledged) - gone - set(held)),
        "rows_of_erased_people": len(gone & set(held)),
        "differences_of_versions": len(differences),
    }


def run(days: int, seed: int, root: Path, log: Path) -> dict[str, Any]:
    """Run all days; write a line a day to `log` and return the account of the end."""
    rng = random.Random(seed)
    capture = Capture(root)
    acknowledged: dict[str, str] = {}
    erased: dict[str, date] = {}
    kills = 0
    began = time.monotonic()
    with log.open("w") as out:
        for number in range(days):
            on = START + timedelta(days=number)
            got, killed = send_day(capture, on, rng, is_killed=number % 3 == 2)
            acknowledged |= got
            if number % 20 == 19:
                jump(capture, on, rng)
            capture.seal()
            now = datetime.combine(on + timedelta(days=1), time_of_day(1), UTC)
            todo: list[tuple[Callable[..., None], Any]] = [(make_days, ([on], now))]
            if number % 10 == 9:
                todo.append((cut, (f"dpo_gold_v{number // 10 + 1}",)))
            if number % 15 == 14:
                person = f"user {number // 15}"
                erased[person] = on
                todo.append((erase, (person, now)))
            if number % 7 == 6:
                todo.append((maintain, (now,)))
            if number % 5 == 4 or number == days - 1:
                todo.append((back_up, (root.parent / "backups",)))
            died = killed + sum(run_killed(rng, work, root, *given) for work, given in todo)
            kills += died
            line = {
                "day": on.isoformat(),
                "work": [work.__name__ for work, _ in todo],
                "acknowledged": len(got),
                "kills": died,
                "capture_mib": round(capture.memory_mib, 1),
                "seconds": round(time.monotonic() - began, 1),
                **count_files(root),
            }
            out.write(json.dumps(line) + "\n")
            out.flush()
    capture.process.terminate()
    capture.process.join()
    account = {"days": days, "kills": kills, **check_end(root, acknowledged, erased)}
    return {**account, "rows_restored": restore(root.parent / "backups", root.parent / "restored")}


def jump(capture: Capture, on: date, rng: random.Random) -> None:
    """Send one event while the clock is wrong by decades; nothing may land there."""
    kept = capture.moment.value
    capture.moment.value = datetime(rng.choice([1972, 2095]), 1, 1, tzinfo=UTC).timestamp()
    body = [{"id": f"jump-{on}", "prompt": "How?", "original_llm_output": "Thus.", "final_user_edit": "Like this."}]
    httpx.post(f"{capture.url}/v1/{APPLICATION}/edits", json=body, timeout=60)
    capture.moment.value = kept


def main() -> None:
    """Read the arguments, run, and print the account."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--days", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, default=Path("soak.jsonl"))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(given.days, given.seed, Path(folder) / "home", given.log), indent=2))


if __name__ == "__main__":
    main()
