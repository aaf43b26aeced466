"""A newcomer comes from `git clone` to a picture of the own wheel in a few minutes.

Claim: with uv all steps together are 25 s of CPU, of which the installation is 5; with pip that is 46.
Data: a table of 200 edits by 40 people with column names of its own, written here.
How: everything happens in a new folder, with a new environment and none of this process's settings: clone, install,
`flywheel init`, `flywheel dev` until it says ready, import of the table, `flywheel turn --now`, picture by Chromium
where there is one. Each step is a command that a person would paste; the first that fails ends the run.
Seconds are wall time; CPU is that of the step's processes, but for `flywheel dev`, whose services run on.
Command: python -m benchmarks.first_mile [--installer uv] [--extra all] [--python python3.12] [--picture FILE]
"""

import argparse
import csv
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
_ROWS, _PEOPLE = 200, 40
_READY_S = 300.0
_TABLES = ("orders", "invoices", "customers", "refunds", "stock", "routes", "visits", "tickets")


@dataclass(frozen=True)
class Step:
    """One step of the way, as it went."""

    name: str
    command: str
    seconds: float
    cpu_s: float


@dataclass
class Newcomer:
    """A person in an empty folder."""

    folder: Path
    environment: Mapping[str, str]
    steps: list[Step] = field(default_factory=list)

    def run(self, name: str, command: Sequence[str], where: Path) -> str:
        """Run a command, and note how long it took; return what it printed.

        Raises:
            SystemExit: it failed; what it printed is shown.
        """

        def call() -> str:
            done = subprocess.run(
                command, cwd=where, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                check=False,
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"{name} failed with {done.returncode}: {' '.join(command)}\n{done.stdout[-3000:]}")
            return done.stdout

        return self.do(name, " ".join(Path(word).name if word == command[0] else word for word in command), call)

    def do(self, name: str, shown: str, call: Callable[[], str]) -> str:
        """Do a step, and note how long it took."""
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        printed = call()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.steps.append(Step(name, shown, time.monotonic() - began, cpu_s))
        print(f"  {name}: {self.steps[-1].seconds:.1f} s", flush=True)
        return printed


def main() -> None:
    """Walk the first mile, and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the new environment")
    parser.add_argument("--installer", choices=["pip", "uv"], default="pip")
    parser.add_argument("--extra", default="", help="what is installed besides the base, for instance `all`")
    parser.add_argument("--picture", type=Path, help="where the picture of the wheel's page goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="first-mile-") as folder:
        walk(Path(folder), given)


def walk(folder: Path, given: argparse.Namespace) -> None:
    """Walk from the clone to the picture."""
    clone, venv = folder / "flywheel_assets", folder / ".venv"
    ports = find_ports(3)
    # Nothing of this process but the ways to registries; a cache would make the second newcomer faster than the first.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLYWHEEL_", "PYTHON"))}
    environment |= {
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(venv),
        "PIP_NO_CACHE_DIR": "1",
        "UV_CACHE_DIR": str(folder / "uv"),
        "FLYWHEEL_CAPTURE_PORT": str(ports[0]),
        "COLUMNS": "160",
    }
    person = Newcomer(folder, environment)
    person.run("clone", ["git", "clone", "--quiet", f"file://{ROOT}", clone.name], folder)
    target = f"./{clone.name}[{given.extra}]" if given.extra else f"./{clone.name}"
    constraints = ["--constraint", f"{clone.name}/constraints.txt"]
    if given.installer == "uv":
        uv = shutil.which("uv") or sys.exit("there is no uv on the path: pip install uv")
        person.run("environment", [uv, "venv", "--quiet", "--python", given.python, venv.name], folder)
        person.run("install", [uv, "pip", "install", "--quiet", *constraints, target], folder)
    else:
        person.run("environment", [given.python, "-m", "venv", venv.name], folder)
        person.run("install", [str(venv / "bin" / "pip"), "install", "--quiet", *constraints, target], folder)
    flywheel = str(venv / "bin" / "flywheel")
    person.run("project", [flywheel, "init", "my_flywheel"], folder)
    project = folder / "my_flywheel"
    options = ["--webserver-port", str(ports[1]), "--mlflow-port", str(ports[2])]
    with (folder / "dev.log").open("w") as log:
        dev = subprocess.Popen([flywheel, "dev", *options], cwd=project, env=environment, stdout=log, stderr=log)
    try:
        person.do("ready", "flywheel dev", lambda: wait_for_ready(dev, folder / "dev.log"))
        write_table(project / "desk.csv")
        columns = "prompt=question,output=answer,final_text=answer_sent,user_id=agent"
        person.run("own file in", [flywheel, "import", "desk.csv", "--map", columns], project)
        turned = person.run("gold", [flywheel, "turn", "--now"], project)
        person.run("look", [flywheel, "gold", "rows", "--day", f"{datetime.now(UTC):%Y-%m-%d}"], project)
        take_picture(person, f"http://127.0.0.1:{ports[0]}/wheel/my_flywheel", given.picture or folder / "wheel.png")
    finally:
        dev.send_signal(signal.SIGTERM)
        dev.wait(90)
    print_table(person, given, venv, turned)


def find_ports(count: int) -> list[int]:
    """Find free ports of loopback."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for_ready(dev: "subprocess.Popen[bytes]", log: Path) -> str:
    """Wait until `flywheel dev` says that everything answers."""
    deadline = time.monotonic() + _READY_S
    while "\nready" not in log.read_text():
        if dev.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"`flywheel dev` was not ready:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)
    return log.read_text()


def write_table(path: Path) -> None:
    """Write a help desk's table: questions, drafts of a model, and the answers that were sent."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "answer", "answer_sent", "agent"])
        for number in range(_ROWS):
            table, limit = _TABLES[number % len(_TABLES)], number + 3
            question = f"How do I read the first {limit} rows of {table}?"
            draft = f'rows = ledger.get_table("{table}").head({limit})'
            rows.writerow([question, draft, f'rows = ledger.read("{table}", limit={limit})', f"a{number % _PEOPLE}"])


def take_picture(person: Newcomer, address: str, path: Path) -> None:
    """Take a picture of a page where there is a Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        print("  no Chromium on the path, so there is no picture")
        return
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
             "--window-size=1400,1600", f"--user-data-dir={person.folder / 'chromium'}"]  # fmt: skip
    shown = f"chromium {address}"
    person.do("picture", shown, lambda: _photograph([chromium, *flags, f"--screenshot={path.absolute()}", address]))


def _photograph(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        sys.exit(f"the picture failed: {done.stderr[-2000:]}")
    return done.stdout


def read_output(command: Sequence[str]) -> str:
    """Return what a command prints, run in this checkout."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def print_table(person: Newcomer, given: argparse.Namespace, venv: Path, turned: str) -> None:
    """Print the steps as a Markdown table."""
    commit = read_output(["git", "rev-parse", "--short", "HEAD"])
    size = sum(path.lstat().st_size for path in venv.rglob("*") if path.is_file() and not path.is_symlink())
    version = read_output([str(venv / "bin" / "python"), "-V"])
    found = re.search(r"kept\W+(\d[\d,]*)", turned)
    print(
        f"\n{datetime.now(UTC):%Y-%m-%d}, commit {commit}, {version}, {given.installer}, "
        f"{os.cpu_count()} cores at load {os.getloadavg()[0]:.1f}; environment {size / 1e6:,.0f} MB; "
        f"gold: {found.group(1) if found else 'no'} rows\n"
    )
    print("| step | command | minutes | CPU s |\n|---|---|---:|---:|")
    for step in person.steps:
        print(f"| {step.name} | `{step.command}` | {step.seconds / 60:.2f} | {step.cpu_s:.1f} |")
    print(
        f"| all | | {sum(each.seconds for each in person.steps) / 60:.2f} | {sum(s.cpu_s for s in person.steps):.1f} |"
    )


if __name__ == "__main__":
    main()
