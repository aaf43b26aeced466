"""Provides `flywheel`, the command line for everything that a person does without the UI.

| module | commands |
|---|---|
| `serving` | capture, drain, doctor, dev, demo |
| `files` | import, curate |
| `days` | turn, backfill, stale, history |
| `gold` | gold, verify, retry, abandon |
| `exclusions` | exclude, include, exclusions, retrain, breaker |
| `upkeep` | maintain, rollout, rollback, erase |
| `homes` | backup, restore, move, adopt |
| `whatif` | levers, policy |
| `backtest` | backtest |
| `screen` | screen |
| `trace` | trace |
| `keys`, `init` | keys; init |

A module may import every room, and imports heavy ones inside the commands.
"""

import sys

from flywheel_assets.cli import (
    backtest,
    days,
    exclusions,
    files,
    gold,
    homes,
    init,
    keys,
    screen,
    serving,
    terminal,
    trace,
    upkeep,
    whatif,
)
from flywheel_assets.cli.terminal import app, errors
from flywheel_assets.errors import FlywheelError

__all__ = [
    "app",
    "backtest",
    "days",
    "exclusions",
    "files",
    "gold",
    "homes",
    "init",
    "keys",
    "main",
    "screen",
    "serving",
    "terminal",
    "trace",
    "upkeep",
    "whatif",
]


def main() -> None:
    """Run the command; an error of ours is printed as one line, without a traceback."""
    try:
        app()
    except FlywheelError as error:
        errors.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(75 if error.is_transient else 1)
