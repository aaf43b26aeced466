"""Commands over a whole home: move, adopt (see docs/disaster_recovery.md) and upgrade."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from flywheel_assets import __version__
from flywheel_assets.cli.terminal import Yes, app, console, find_applications, load_application, open_stores

if TYPE_CHECKING:
    from flywheel_assets.lake.tables.lake import Lake
    from flywheel_assets.lake.upkeep.relocation import Registration


@app.command()
def move(yes: Yes = False) -> None:
    """Make a home that was moved or copied here a home of its own.

    Stop what runs on it first. The tables' metadata is written again for this place; data files stay as they are, and
    the original is not touched. The home gets a new id.
    """
    from flywheel_assets.lake.upkeep.relocation import plan_move

    _register(plan_move, secrets.token_hex(8), is_done=yes)


@app.command()
def adopt(yes: Yes = False) -> None:
    """Register the warehouse's tables after the catalog was lost or replaced by an older copy.

    Each table comes back as its newest metadata in the warehouse says, with all snapshots and tags. Stop what runs on
    the home first.
    """
    from flywheel_assets.lake.upkeep.relocation import plan_adoption

    _register(plan_adoption, None, is_done=yes)


@app.command()
def upgrade(yes: Yes = False) -> None:
    """Bring the tables of every application to the schema of this release.

    A daily step does this for its own table when it needs it. Run it once after installing a release, on one host.
    Older releases refuse the home from then on where they would misread it.
    """
    from flywheel_assets.lake.tables.specs import list_tables
    from flywheel_assets.lake.upkeep.upgrade import is_home_marked, mark_home, plan_upgrade, upgrade_tables

    stores = open_stores()
    lakes = {name: stores.lake(name) for name in find_applications()}
    begun = {name: lake for name, lake in lakes.items() if lake.is_begun}
    planned = {name: plan_upgrade(lake, list_tables(load_application(name).tables)) for name, lake in begun.items()}
    table = Table("table", "schema", "new columns")
    for name, found in planned.items():
        for each in found:
            versions = f"{each.version or 'none'} → {each.spec.schema_version}"
            table.add_row(f"{name}.{each.spec.name}", versions, ", ".join(each.new_columns) or "none")
    unmarked = [lake for lake in begun.values() if not is_home_marked(lake)]
    if not any(planned.values()) and not unmarked:
        console.print(f"nothing to do: {stores.where.resolve_home()} is as release {__version__} makes it")
        return
    console.print(table)
    if not yes:
        console.print(
            f"would upgrade these tables, and name release {__version__} in the home's markers; rows stay as they "
            "are. Make a copy first, then repeat the command with --yes.",
            soft_wrap=True,
        )
        return
    for name, lake in begun.items():
        upgrade_tables(lake, planned[name])
        mark_home(lake)
    console.print(f"{stores.where.resolve_home()} is as release {__version__} makes it", soft_wrap=True)


def _register(plan: "Callable[[Lake], list[Registration]]", home_id: str | None, *, is_done: bool) -> None:
    from flywheel_assets.lake.tables.home import claim_landing
    from flywheel_assets.lake.upkeep.relocation import list_namespaces, register_tables

    stores = open_stores()
    first = stores.lake(next(iter(find_applications())))
    home_id = home_id or first.home.find_id() or secrets.token_hex(8)
    lakes = [stores.lake(name) for name in list_namespaces(first)]
    planned = [(lake, plan(lake)) for lake in lakes]
    table = Table("table", "rows", "snapshots", "from", "the catalog has")
    for lake, each in ((lake, each) for lake, found in planned for each in found):
        name = f"{lake.application}.{each.name}"
        table.add_row(name, f"{each.rows:,}", str(each.snapshots), each.metadata, each.replaces or "nothing")
    console.print(table)
    place = stores.where.resolve_home()
    if not is_done:
        console.print(
            f"would register these tables for {place}, and give its parts one id. Stop capture, the daemon and every "
            "run on this home, then repeat the command with --yes.",
            soft_wrap=True,
        )
        return
    for lake, found in planned:
        register_tables(lake, found, home_id=home_id)
    claim_landing(stores.landing_folder(), home_id)
    number = sum(len(found) for _, found in planned)
    console.print(f"{number} tables registered; {place} is the home {home_id}", soft_wrap=True)
