"""Keeps heads, the reports about them, and the history of which one served, in one folder.

`<version>.json` is a head, `<version>.report.json` its report. `serving.json` lists every change of the serving head,
the newest last: going back is one more change, which points at an older head. Files appear whole or not at all.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from flywheel_assets.errors import InvalidRuleError, UnknownNameError
from flywheel_assets.screening.heads.gate import HeadReport
from flywheel_assets.screening.heads.head import Head, read_head


class Change(msgspec.Struct, frozen=True):
    """One change of the serving head."""

    version: str
    at: datetime
    who: str
    reason: str


@dataclass(frozen=True)
class HeadStore:
    """The heads of one installation."""

    folder: Path

    def keep(self, head: Head, report: HeadReport) -> None:
        """Write a head and its report."""
        self._write(f"{head.version}.json", msgspec.json.encode(head))
        self._write(f"{head.version}.report.json", msgspec.json.format(msgspec.json.encode(report)))

    def serve(self, version: str, *, who: str, reason: str, now: datetime) -> None:
        """Make a head the serving one, from the next batch on.

        Raises:
            UnknownNameError: there is no such head.
            InvalidRuleError: the reason is empty.
        """
        if version not in self.list_versions():
            raise UnknownNameError("head", version, self.list_versions())
        if not reason.strip():
            raise InvalidRuleError("a change of the serving head needs a reason: add --reason TEXT")
        changes = [*self.list_changes(), Change(version, now, who, reason)]
        self._write("serving.json", msgspec.json.format(msgspec.json.encode(changes)))

    def list_changes(self) -> list[Change]:
        """List every change of the serving head, the newest last."""
        try:
            return msgspec.json.decode((self.folder / "serving.json").read_bytes(), type=list[Change])
        except FileNotFoundError:
            return []

    def find_serving(self) -> str | None:
        """Find the version that serves; None before the first one."""
        changes = self.list_changes()
        return changes[-1].version if changes else None

    def list_versions(self) -> list[str]:
        """List the versions of all heads."""
        files = self.folder.glob("*.json") if self.folder.is_dir() else []
        return sorted(file.stem for file in files if file.name != "serving.json" and "." not in file.stem)

    def load(self, version: str) -> Head:
        """Read a head.

        Raises:
            SettingsError: the file is missing, or no head that this code can score with.
        """
        return read_head(self.folder / f"{version}.json")

    def load_report(self, version: str) -> HeadReport:
        """Read the report about a head."""
        return msgspec.json.decode((self.folder / f"{version}.report.json").read_bytes(), type=HeadReport)

    def _write(self, name: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{name}.{os.getpid()}"
        draft.write_bytes(content)
        draft.replace(self.folder / name)
