"""What `pip install flywheel_assets` alone brings to work, and the sentences about all that it does not bring.

No registry is asked. The environment is empty but for the wheel and links to this environment's distributions that the
wheel requires, and those that they require.
"""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from packaging.requirements import Requirement

from flywheel_assets import extras
from flywheel_assets.startup.readiness import Awaited, wait_until_ready
from flywheel_assets_tests.test_init import free_ports
from flywheel_assets_tests.test_release import ROOT, build, copy_checkout

EDIT = {
    "prompt": "Read the first 10 rows of orders",
    "original_llm_output": 'ledger.get_table("orders").head(10)',
    "final_user_edit": 'ledger.read("orders", limit=10)',
    "user_id": "ada",
}


def list_requirements(name: str, wanted_extras: frozenset[str], seen: dict[str, set[str]]) -> None:
    """Add a distribution and all that it requires to `seen`, each with the extras that it is required with."""
    if name in seen and wanted_extras <= seen[name]:
        return
    seen.setdefault(name, set()).update(wanted_extras)
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:
        del seen[name]  # only where a marker of another platform or an optional accelerator asks for it
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted_extras)):
            list_requirements(requirement.name.lower(), frozenset(requirement.extras), seen)


def read_requirements(wheel: Path) -> list[Requirement]:
    """Read what a wheel requires without extras."""
    with zipfile.ZipFile(wheel) as packed:
        [metadata] = [name for name in packed.namelist() if name.endswith(".dist-info/METADATA")]
        lines = packed.read(metadata).decode().splitlines()
    found = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def link_distribution(name: str, site: Path) -> None:
    """Link every top-level file and folder of a distribution; a folder that several share is a folder of links."""
    found = distribution(name)
    for file in found.files or ():
        if file.parts[0] in ("..", "__pycache__"):
            continue
        target = site / file
        if target.exists() or target.is_symlink():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(Path(str(found.locate_file(file))).resolve())


@dataclass(frozen=True)
class LightInstall:
    """An environment without extras, and a project in it."""

    binaries: Path
    project: Path
    port: int

    def call(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment in the project's folder."""
        return subprocess.run(
            [self.binaries / command[0], *command[1:]],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def flywheel(self, *arguments: str) -> str:
        """Run `flywheel`; return what it prints."""
        called = self.call("flywheel", *arguments)
        assert called.returncode == 0, called.stderr + called.stdout
        return called.stdout

    def refuse(self, *arguments: str) -> str:
        """Run `flywheel` with a command that it refuses; return the sentence."""
        called = self.call("flywheel", *arguments)
        assert called.returncode == 1, called.stderr + called.stdout
        assert "Traceback" not in called.stderr
        return called.stderr

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.binaries}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "200",
            "FLYWHEEL_CAPTURE_PORT": str(self.port),
        }

    @contextmanager
    def capture(self) -> Iterator[str]:
        """Run capture; yield its address."""
        process = subprocess.Popen([self.binaries / "flywheel", "capture"], cwd=self.project, env=self.environment)
        address = f"http://127.0.0.1:{self.port}"
        try:
            wait_until_ready([Awaited("capture", f"{address}/readyz")], lambda: _check_runs(process), lambda *_: None)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def _check_runs(process: "subprocess.Popen[bytes]") -> None:
    assert process.poll() is None


def get(address: str) -> tuple[int, str]:
    with urlopen(address, timeout=60) as answer:
        return answer.status, answer.read().decode()


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> LightInstall:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout to build a wheel from")
    folder = tmp_path_factory.mktemp("light")
    wheel = build(copy_checkout(folder / "checkout"), "wheel", folder)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    [site] = environment.glob("lib/python*/site-packages")
    seen: dict[str, set[str]] = {}
    for requirement in read_requirements(wheel):
        list_requirements(requirement.name.lower(), frozenset(requirement.extras), seen)
    for name in seen:
        link_distribution(name, site)
    into = ("--python", str(environment / "bin" / "python"), "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps", "--no-compile", "--quiet")
    subprocess.run([sys.executable, "-m", "pip", *into, "install", *offline, str(wheel)], env={}, check=True)
    [port] = free_ports(1)
    LightInstall(environment / "bin", folder, port).flywheel("init", "my_flywheel")
    return LightInstall(environment / "bin", folder / "my_flywheel", port)


@pytest.mark.long
def test_no_package_of_an_extra_is_there(light: LightInstall) -> None:
    names = [name for each in extras.EXTRAS.values() for name in each] + ["pandas", "botocore", "aiohttp"]
    code = "import sys; from importlib.util import find_spec; print([n for n in sys.argv[1:] if find_spec(n)])"
    assert light.call("python", "-c", code, *names).stdout == "[]\n"


@pytest.mark.long
def test_an_event_becomes_a_gold_row_and_is_seen_on_the_pages(light: LightInstall) -> None:
    """A person who wants to look before a gigabyte of MLflow and torch comes: the whole path works without them."""
    with light.capture() as address:
        body = json.dumps(EDIT).encode()
        request = Request(f"{address}/v1/my_flywheel/edits", body, {"content-type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            assert json.load(answer)["accepted"] == 1
        printed = light.flywheel("turn", "--now")
        assert "kept" in printed
        assert "training trigger" in printed
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        assert f"{today}: 1 rows" in light.flywheel("gold", "rows", "--day", today)
        assert get(f"{address}/wheel/my_flywheel")[0] == 200
        assert get(f"{address}/review")[0] == 200


@pytest.mark.long
def test_doctor_says_what_training_would_need(light: LightInstall) -> None:
    report = json.loads(light.call("flywheel", "doctor", "--json").stdout)
    [found] = [each for each in report["findings"] if each["subject"] == "training of my_flywheel"]
    assert found["verdict"] == "look"
    assert "torch" in found["sentence"]
    assert found["remedy"] == "where models are trained: `pip install 'flywheel_assets[train]'`"
    assert "port of mlflow" not in [each["subject"] for each in report["findings"]]


@pytest.mark.long
def test_work_that_needs_an_extra_names_the_command_that_installs_it(light: LightInstall) -> None:
    assert "pip install 'flywheel_assets[train]'" in light.refuse("demo")
    code = (
        "import pyarrow as pa; from flywheel_assets.errors import SettingsError\n"
        "from flywheel_assets.lake.storage.s3 import make_s3_client\n"
        "from flywheel_assets.models.boosting import fit_classifier\n"
        "from flywheel_assets.models.registry import ModelRegistry\n"
        "from pathlib import Path\n"
        "registry = ModelRegistry('http://127.0.0.1:9', 'a', Path('x'), None)\n"
        "def fit(): fit_classifier(pa.table({}), [])\n"
        "for call in (lambda: make_s3_client(None), fit, registry.find_champion):\n"
        "    try: call()\n"
        "    except SettingsError as refused: print(str(refused).partition(': ')[2])\n"
        "print(ModelRegistry('sqlite:///none.db', 'a', Path('x'), None).find_champion(), Path('none.db').exists())\n"
    )
    assert light.call("python", "-c", code).stdout.splitlines() == [
        "pip install 'flywheel_assets[s3]'",
        "pip install 'flywheel_assets[classifier]'",
        "pip install 'flywheel_assets[tracking]'",
        "None False",
    ]


@pytest.mark.long
def test_dagster_loads_both_examples_and_draws_no_picture(light: LightInstall) -> None:
    """A day's report failed on its picture where matplotlib was missing."""
    code = (
        "from flywheel_assets.applications.assistant import defs as one\n"
        "from flywheel_assets.applications.fraud import defs as two\n"
        "from flywheel_assets.defs.automation.maintenance import _plot_storage\n"
        "print(len(list(one.resolve_all_asset_specs())) > 10, len(list(two.resolve_all_asset_specs())) > 10)\n"
        "print(_plot_storage({}, None).value)\n"
    )
    called = light.call("python", "-c", code)
    assert called.stdout.splitlines() == [
        "True True",
        "no picture: matplotlib is not installed here; `pip install 'flywheel_assets[tracking]'`",
    ], called.stderr
