"""Writes the small home of a release, by that release's own code: run it in a checkout of its tag.

    python -m flywheel_assets_tests.homes.make_home /srv/flywheel v0_1_0.tar.xz

Both applications, each up to a cut version; one exclusion; one erased person with the receipt. `counts.json` says how
many rows each table has. Iceberg's files name the folder, so the test moves the home to where it unpacks it.
"""

import sys
import tarfile
from datetime import timedelta
from pathlib import Path

import msgspec

from flywheel_assets.lake.erasure.erase import Place, erase_person, plan_erasure
from flywheel_assets.lake.tables.specs import list_tables
from flywheel_assets.lake.versions.exclusions import ExclusionRule, exclude_rows
from flywheel_assets_tests.lake import killable
from flywheel_assets_tests.lake.killable import AFTER_ALL, ASSISTANT
from flywheel_assets_tests.lake.workbench import landing_of


def make_home(root: Path) -> None:
    """Make the home in an empty folder; its erasure key is no secret."""
    (root / "erasure.key").write_text("0" * 64)
    (root / "erasure.key").chmod(0o600)
    steps = killable.plan(3, 1, 1)
    [wheel] = killable.landed(steps, root)
    for step in steps:
        wheel.run(step)
    bench, versions = wheel.benches[ASSISTANT], wheel.versions[ASSISTANT]
    exclude_rows(bench.lake, ExclusionRule(user_id="user 2"), who="ada", reason="a test account", now=AFTER_ALL)
    place = Place(bench.lake, bench.tables, versions, landing_of(bench), bench.start, {})
    erase_person(place, plan_erasure(place, "user 1"), who="ada", reason="asked", now=AFTER_ALL, grace=timedelta(0))
    for name in wheel.benches:
        wheel.collect(name)
    counts = {
        f"{name}.{spec.name}": len(each.rows(spec))
        for name, each in wheel.benches.items()
        for spec in list_tables(each.tables)
        if each.lake.has_table(spec)
    }
    for each in wheel.benches.values():
        each.lake.catalog.engine.dispose()
    (root / "counts.json").write_bytes(msgspec.json.format(msgspec.json.encode(counts)))


def forget_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave the accounts of the machine out of the archive."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    home, archive = Path(sys.argv[1]), Path(sys.argv[2])
    make_home(home)
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(home, arcname="home", filter=forget_owner)
