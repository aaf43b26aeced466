"""A Postgres server of the tests' own on a Unix socket, from Debian's package, never run as root: it would refuse."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BINARIES = Path("/usr/lib/postgresql/15/bin")


@dataclass(frozen=True)
class PostgresServer:
    """Where it keeps its data and its socket."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg://flywheel@/postgres?host={self.folder}"

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once, as by a power cut: no client is told, and the next start recovers."""
        self._run("pg_ctl", "-D", str(self.data), "-w", "-m", "immediate", "stop")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def create(self) -> None:
        self._run("initdb", "-D", str(self.data), "-U", "flywheel", "-A", "trust", "-N")

    def _run(self, program: str, *arguments: str) -> None:
        user = _user()
        other: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(BINARIES / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **other)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server; skips with the reason where there is none to run."""
    if not (BINARIES / "initdb").exists():
        pytest.skip(f"no Postgres in {BINARIES}: apt-get install postgresql-15")
    pytest.importorskip("psycopg")
    # Not in pytest's folder: a socket's path has 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="flywheel-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(folder, _user(), _user())
    server = PostgresServer(folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str:
    return "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
