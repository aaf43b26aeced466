"""Provides `flywheel`, the command line for everything that a person does without the UI.

| module | commands |
|---|---|
| `serving` | capture, drain, doctor, dev, demo |
| `files` | import, curate |
| `days` | turn, backfill, stale, history |
| `gold` | gold, verify, retry, abandon |
| `exclusions` | exclude, include, exclusions, retrain, breaker |
| `upkeep` | fsck, maintain, rollout, rollback, erase |
| `homes` | backup, restore, move, adopt, upgrade |
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
    """Run the command; an error of ours, or a file that may not be opened, is one line.

    So is a library's error where a file of the home is damaged: then the files are named, with their way back, and
    the file that the traceback was written to.
    """
    try:
        app()
    except FlywheelError as error:
        _print_error(type(error).__name__, str(error))
        sys.exit(75 if error.is_transient else 1)
    except PermissionError as error:
        if error.filename is None:
            raise
        _print_error("PermissionError", f"{error.strerror}: {error.filename}. Let this user own it, or name another.")
        sys.exit(1)
    except Exception as error:
        if not upkeep.explain_damage(error):
            raise
        raise SystemExit(1) from error


def _print_error(name: str, sentence: str) -> None:
    errors.print(f"[bold red]error:[/] {name}: ", end="")
    errors.print(sentence, markup=False, highlight=False, soft_wrap=True)
