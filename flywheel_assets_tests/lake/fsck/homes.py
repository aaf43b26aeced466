"""A small home with one of everything that fsck looks at, and ways to damage a file."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flywheel_assets.applications.assistant import APPLICATION
from flywheel_assets.defs.automation.inspection import inspect_home
from flywheel_assets.defs.running import open_instance
from flywheel_assets.lake.fsck.findings import Report
from flywheel_assets.lake.landing.disk import DiskLanding, EventKind
from flywheel_assets.lake.versions.folders import Promotion, record_promotion
from flywheel_assets.lake.versions.pair_versions import cut_pair_version
from flywheel_assets.models.model_folder import hash_weights
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets_tests.builders import day, make_feedback, make_prediction
from flywheel_assets_tests.command_line import ROOT, flywheel
from flywheel_assets_tests.lake.gold import write_gold_days
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.models.tracked import empty_run

NAME = APPLICATION.name
V1 = "dpo_gold_v1"
V2 = "dpo_gold_v2"
DAYS = [day(number) for number in range(3)]
TRACED = "p1-3"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def make_home(root: Path) -> None:
    """Three days from landing to gold, one erased person, two versions, the first of them trained and promoted."""
    bench = Workbench(root, application=NAME)
    for number, on in enumerate(DAYS):
        events = range(6)
        ids = [f"p{number}-{each}" for each in events]
        users = [f"user {number} {each}" for each in events]
        texts = [f"answer {number} {each}, which says quite a lot about this thing" for each in events]
        bench.land(
            EventKind.PREDICTION,
            on,
            [
                make_prediction(event_id=i, prediction_id=i, user_id=u, prompt=f"question {i}", output=t)
                for i, u, t in zip(ids, users, texts, strict=True)
            ],
        )
        bench.land(
            EventKind.FEEDBACK,
            on,
            [
                make_feedback(event_id=f"f{i}", prediction_id=i, user_id=u, final_text=f"{t}, and more")
                for i, u, t in zip(ids, users, texts, strict=True)
            ],
        )
    bench.ingest_both(DAYS)
    bench.join(DAYS)
    bench.curate(DAYS)
    erased = flywheel(root, "erase", "--user", "user 0 0", "--reason", "asked", "--grace-hours", "0", "--yes")
    assert erased.returncode == 0, erased.stderr
    stores = open_stores(root)
    lake, versions, registry = stores.lake(NAME), stores.versions(NAME), stores.registry(NAME)
    # What these few edits give is too little to train on.
    write_gold_days(lake, {day(3): 12, day(4): 12})
    for version in (V1, V2):
        cut_pair_version(lake, versions, version, replace(APPLICATION.resolution, holdout_share=0.3), "1")
    folder = versions.folder(V1)
    adapter = folder.training / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 4)
    folder.training_report.write_text(f'{{"adapter_sha256": "{hash_weights(adapter)}"}}')
    record_promotion(
        folder.promotion,
        Promotion(version=V1, promoted=True, sentence="Better.", champion_before=None, checks=[{"name": "gain"}]),
    )
    registry.register_adapter(V1, empty_run(registry, V1), adapter, "a" * 64)
    registry.promote(V1, None, now=NOW)
    DiskLanding(bench.landing).note_first_day(NAME, DAYS[0])
    open_instance(root / "dagster", ROOT / "dagster.yaml").dispose()
    (root / "capture_keys.json").write_text("[]")


def open_stores(root: Path) -> Stores:
    return Stores(isolate_settings(root))


def inspect(root: Path, share: float = 1.0) -> Report:
    return inspect_home(open_stores(root), [APPLICATION], share, NOW)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one byte in the middle, at equal size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def fill_with_garbage(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes((b"\x00\xffgarbage" * size)[:size])


def delete(path: Path) -> None:
    path.unlink()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "truncated": truncate,
    "flipped": flip,
    "garbage": fill_with_garbage,
    "deleted": delete,
}
