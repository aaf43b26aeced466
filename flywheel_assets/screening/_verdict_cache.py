"""Keeps a judge's answers on disk: curating a day again asks no judge, and gives the same table.

An answer is kept under a hash of the texts and the version of the judge, which changes with everything that decides;
the file holds no user text. Any user who has a text can still compare its hash: an erasure deletes the answers about
the person's texts, whichever judge gave them, and SQLite overwrites deleted rows. Only answers are kept, never
failures: a row that waits because the judge was away is asked about again.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

_BUSY_TIMEOUT_S = 60.0
_KEYS_AT_ONCE = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    texts TEXT, judge TEXT, answer TEXT NOT NULL, PRIMARY KEY (texts, judge)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (judge TEXT, day TEXT, requests INTEGER NOT NULL, PRIMARY KEY (judge, day));
"""


class Answer(msgspec.Struct, frozen=True):
    """One row's verdict as a judge gave it."""

    verdict: str
    category: str | None
    score: float


@dataclass(frozen=True)
class VerdictCache:
    """A SQLite file, shared by threads and processes."""

    path: Path
    judge: str
    """Version of the judge whose answers are read and kept."""

    def find_answers(self, keys: Iterable[str]) -> dict[str, Answer]:
        """Look up the answers that are known."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Answer] = {}
        with self._open() as connection:
            for start in range(0, len(wanted), _KEYS_AT_ONCE):
                some = wanted[start : start + _KEYS_AT_ONCE]
                marks = ", ".join("?" * len(some))
                query = f"SELECT texts, answer FROM verdicts WHERE judge = ? AND texts IN ({marks})"
                for key, answer in connection.execute(query, [self.judge, *some]):
                    found[key] = msgspec.json.decode(answer, type=Answer)
        return found

    def remember(self, answers: Mapping[str, Answer]) -> None:
        """Keep answers; the first one about a key stays, so that two runs at once agree afterwards."""
        rows = [(key, self.judge, msgspec.json.encode(answer).decode()) for key, answer in answers.items()]
        with self._open() as connection:
            connection.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?)", rows)

    def forget(self, keys: Iterable[str]) -> int:
        """Delete the answers about these keys, of every judge; return how many there were."""
        if not self.path.exists():
            return 0
        with self._open() as connection:
            deleted = connection.executemany("DELETE FROM verdicts WHERE texts = ?", [(key,) for key in set(keys)])
            return max(0, deleted.rowcount)

    def spend(self, judge: str, day: date, budget: int) -> bool:
        """Take one request out of the day's budget; False when it is spent."""
        with self._open() as connection:
            connection.execute("INSERT OR IGNORE INTO spent VALUES (?, ?, 0)", (judge, day.isoformat()))
            changed = connection.execute(
                "UPDATE spent SET requests = requests + 1 WHERE judge = ? AND day = ? AND requests < ?",
                (judge, day.isoformat(), budget),
            )
            return changed.rowcount == 1

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S)
        try:
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
            with connection:
                yield connection
        finally:
            connection.close()
