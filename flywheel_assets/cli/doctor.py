"""Says whether this installation could take events, and what to do where it could not."""

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from flywheel_assets.capture.doctor import Finding, Verdict, examine
from flywheel_assets.cli.terminal import app, console
from flywheel_assets.settings import settings

_COLOURS = {Verdict.FINE: "green", Verdict.LOOK: "yellow", Verdict.BROKEN: "bold red"}


@app.command()
def doctor() -> None:
    """Check keys, address, disk, limits and queue of the capture service; exit code 1 when something is broken."""
    findings = _findings()
    table = Table("", "what", "found", "what to do")
    for finding in findings:
        colour = _COLOURS[finding.verdict]
        verdict = f"[{colour}]{finding.verdict}[/]"
        table.add_row(verdict, finding.subject, escape(finding.sentence), escape(finding.remedy))
    console.print(table)
    if any(finding.verdict is Verdict.BROKEN for finding in findings):
        raise typer.Exit(1)


def _findings() -> list[Finding]:
    try:
        return examine(settings())
    except ValidationError as error:
        # Not the values: a setting may hold a password.
        return [
            Finding("settings", Verdict.BROKEN, f"FLYWHEEL_{'_'.join(map(str, each['loc'])).upper()}: {each['msg']}")
            for each in error.errors(include_input=False, include_url=False)
        ]
