"""What a judge has answered, on disk: curating a day again asks nobody, and gives the same table.

Keys are hashes of what was judged and of everything that decides the judgement; the file holds no user text. Only
answers are kept, never failures: a row that waits because the judge was away is asked about again.
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
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID;
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

    def answers(self, keys: Iterable[str]) -> dict[str, Answer]:
        """The answers that are known."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Answer] = {}
        with self._open() as connection:
            for start in range(0, len(wanted), _KEYS_AT_ONCE):
                some = wanted[start : start + _KEYS_AT_ONCE]
                marks = ", ".join("?" * len(some))
                for key, answer in connection.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some):
                    found[key] = msgspec.json.decode(answer, type=Answer)
        return found

    def remember(self, answers: Mapping[str, Answer]) -> None:
        """Keep answers; the first one about a key stays, so that two runs at once agree afterwards."""
        rows = [(key, msgspec.json.encode(answer).decode()) for key, answer in answers.items()]
        with self._open() as connection:
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

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
            connection.executescript(_SCHEMA)
            with connection:
                yield connection
        finally:
            connection.close()
