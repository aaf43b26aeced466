"""Commands that make a moved, copied or half-lost home whole again: move, adopt. See docs/disaster_recovery.md."""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.table import Table

from flywheel_assets.cli.terminal import Yes, app, console
from flywheel_assets.discovery import find_applications
from flywheel_assets.stores import Stores

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


def _register(plan: "Callable[[Lake], list[Registration]]", home_id: str | None, *, is_done: bool) -> None:
    from flywheel_assets.lake.upkeep.relocation import list_namespaces, register_tables

    stores = Stores()
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
    stores.landing().claim(home_id)
    number = sum(len(found) for _, found in planned)
    console.print(f"{number} tables registered; {place} is the home {home_id}", soft_wrap=True)
