"""A team's own trainer that breaks the flywheel's process which runs it, at a known point and in a chosen way.

The process that dies is the product's own trainer or evaluator, which asked for this command.
"""

from dataclasses import dataclass
from pathlib import Path

from flywheel_assets.models.trainers.command import CommandRecipe

_BREAK = """
import os, pathlib, resource, signal, sys, time

how, _, where = pathlib.Path({order!r}).read_text().partition(" ")
# The parent of this command is the guard, whose parent is the process that asked for it.
victim = int(pathlib.Path("/proc", str(os.getppid()), "stat").read_text().rpartition(")")[2].split()[1])
if how.startswith("SIG"):
    os.kill(victim, getattr(signal, how))
    sys.exit()
if how == "wait":
    time.sleep(600)
if how == "no_writes":
    resource.prlimit(victim, resource.RLIMIT_FSIZE, (0, 0))
if how == "no_memory":
    resource.prlimit(victim, resource.RLIMIT_AS, (2**20, 2**20))
"""
_FILL = """
if how == "fill":
    free = os.statvfs(where)
    with open(os.path.join(where, "ballast"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize)
"""
_TRAIN = """
import shutil
model = pathlib.Path(sys.argv[2])
shutil.copy("score.py", model / "score.py")
(model / "score.json").write_text('{"command": ["python", "score.py"]}')
"""
_SCORE = """
import pyarrow as pa, pyarrow.parquet as pq
rows = pq.read_table(sys.argv[1]).num_rows
pq.write_table(pa.table({"score": [0.01 + 0.9 * each / rows for each in range(rows)]}), sys.argv[2])
"""


@dataclass(frozen=True)
class Saboteur:
    """The trainer's recipe, and the order that it reads whenever it runs."""

    recipe: CommandRecipe
    order: Path

    def do(self, how: str) -> None:
        """Set the order: a signal's name, `wait`, `no_writes`, `no_memory`, `fill FOLDER`, or else a sound run."""
        self.order.write_text(how)


def write_saboteur(folder: Path) -> Saboteur:
    """Write the commands into `folder`."""
    folder.mkdir(parents=True)
    order = folder / "order"
    order.write_text("nothing")
    start = _BREAK.format(order=str(order))
    (folder / "train.py").write_text(start + _TRAIN + _FILL)
    (folder / "score.py").write_text(start + _SCORE + _FILL)
    recipe = CommandRecipe(command=("python", "train.py"), folder=str(folder), timeout_s=60.0, scoring_timeout_s=60.0)
    return Saboteur(recipe, order)
