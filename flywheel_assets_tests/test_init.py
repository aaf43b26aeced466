"""`flywheel init` writes a project that works at once: its test, its code location, its services, its first event."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import pytest

from flywheel_assets.cli.init import Kind, write_project
from flywheel_assets.errors import SettingsError
from flywheel_assets_tests.command_line import ROOT, flywheel

SCRIPTS = Path(sys.executable).parent
PAGE = (ROOT / "docs" / "own_project.md").read_text()


def run(folder: Path, *command: str, **extra: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, as a person would in that folder; only our code is on the path, not the project."""
    return subprocess.run(
        command, cwd=folder, env=environment(**extra), capture_output=True, text=True, check=False, timeout=300
    )


def environment(**extra: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("FLYWHEEL_", "DAGSTER_"))}
    path = f"{SCRIPTS}:{ours['PATH']}"
    return {**ours, "PYTHONPATH": str(ROOT), "PATH": path, "COLUMNS": "200", "PYTHONWARNINGS": "ignore", **extra}


def blocks(text: str) -> list[str]:
    """The shell blocks of a page, in order."""
    return re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.long
@pytest.mark.parametrize("kind", [Kind.PREFERENCE, pytest.param(Kind.CLASSIFICATION, marks=pytest.mark.slow)])
def test_a_new_project_passes_its_test_and_dagster_loads_it(tmp_path: Path, kind: Kind) -> None:
    written = run(tmp_path, "flywheel", "init", "my_flywheel", "--kind", kind)
    assert written.returncode == 0, written.stderr
    assert "next: cd my_flywheel && pytest && flywheel dev" in written.stdout
    project = tmp_path / "my_flywheel"
    tested = run(project, "pytest", "-q", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout
    validated = run(project, "dagster", "definitions", "validate")
    assert validated.returncode == 0, validated.stdout + validated.stderr


@pytest.mark.long
def test_an_installed_project_is_found_from_every_folder(tmp_path: Path) -> None:
    project = write_project(tmp_path, "my_flywheel", Kind.PREFERENCE)
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    installed = run(project, sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(site), ".")
    assert installed.returncode == 0, installed.stderr
    examined = run(elsewhere, "flywheel", "doctor", PYTHONPATH=f"{ROOT}:{site}", FLYWHEEL_CAPTURE_PORT="0")
    assert "my_flywheel, entry point of my_flywheel" in examined.stdout
    assert "fraud" not in examined.stdout


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("my-flywheel", "'my-flywheel' cannot name a Python package and an application; valid: lower-case letters"),
        ("MyFlywheel", "valid: lower-case letters"),
        ("class", "no Python keyword"),
        ("../other", "valid: lower-case letters"),
        ("json", "a Python package called 'json' exists already"),
        ("tests", "a Python package called 'tests' exists already"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(complaint)):
        write_project(tmp_path, name, Kind.PREFERENCE)
    assert list(tmp_path.iterdir()) == []


def test_init_overwrites_nothing_and_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my_flywheel"
    folder.mkdir()
    write_project(tmp_path, "my_flywheel", Kind.PREFERENCE)  # an empty folder is no obstacle
    (folder / "README.md").write_text("mine")
    with pytest.raises(SettingsError, match="exists and is not empty; choose another name, or move it away"):
        write_project(tmp_path, "my_flywheel", Kind.CLASSIFICATION)
    assert (folder / "README.md").read_text() == "mine"
    refused = flywheel(tmp_path, "init", "not-a-name")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: SettingsError: 'not-a-name'")


@pytest.mark.parametrize("kind", Kind)
def test_a_project_keeps_the_house_s_instance_and_style(tmp_path: Path, kind: Kind) -> None:
    project = write_project(tmp_path, "my_flywheel", kind)
    assert (project / "dagster.yaml").read_text() == (ROOT / "dagster.yaml").read_text()
    for linter in (["check", "--ignore", "D103"], ["format", "--check"]):
        linted = run(project, "ruff", *linter, "--no-cache", "--config", str(ROOT / "pyproject.toml"), ".")
        assert linted.returncode == 0, linted.stdout
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared == {"flywheel_assets.applications": {"my_flywheel": "my_flywheel"}}


def test_every_template_is_used_and_is_in_the_wheel(tmp_path: Path) -> None:
    folder = ROOT / "flywheel_assets" / "cli" / "init_templates"
    source = (ROOT / "flywheel_assets" / "cli" / "init.py").read_text()
    for template in folder.iterdir():
        pattern = re.sub(r"preference|classification", "{kind}", template.name)
        assert pattern in source, f"{template.name} is used by no project"
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert data["flywheel_assets.cli"] == ["init_templates/*"]


def test_the_page_s_event_is_the_one_of_the_project_s_readme(tmp_path: Path) -> None:
    readme = (write_project(tmp_path, "my_flywheel", Kind.PREFERENCE) / "README.md").read_text()
    assert blocks(readme)[-1] in blocks(PAGE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", Kind)
def test_the_first_event_reaches_gold_as_the_page_says(tmp_path: Path, kind: Kind) -> None:
    begin, services, send = blocks(PAGE)[:3]
    begin = begin.replace("flywheel init my_flywheel", f"flywheel init my_flywheel --kind {kind}")
    started = run(tmp_path, "bash", "-ec", begin)
    assert started.returncode == 0, started.stdout + started.stderr
    project = tmp_path / "my_flywheel"
    if kind is Kind.CLASSIFICATION:
        send = blocks((project / "README.md").read_text())[-1]
    webserver, capture, mlflow = free_ports(3)
    command = [*services.split("#")[0].split(), "--webserver-port", str(webserver), "--mlflow-port", str(mlflow)]
    with (tmp_path / "dev.log").open("w") as log:
        dev = subprocess.Popen(
            command, cwd=project, env=environment(FLYWHEEL_CAPTURE_PORT=str(capture)), stdout=log, stderr=log
        )
    try:
        keys = asset_keys_when_up(dev, webserver, tmp_path / "dev.log")
        assert {path[0] for path in keys} == {"my_flywheel"}
        gold = "curated_dpo_pairs" if kind is Kind.PREFERENCE else "hard_examples"
        assert ["my_flywheel", gold] in keys
        sent = run(project, "bash", "-ec", send.replace(":8700/", f":{capture}/"))
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert '"accepted":1' in sent.stdout
        assert re.search(r"kept +│ +1 ", sent.stdout), sent.stdout
        refused = httpx.post(f"http://127.0.0.1:{capture}/v1/fraud/labels", json={})
        assert refused.status_code == 404
    finally:
        dev.send_signal(signal.SIGTERM)
        dev.wait(60)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def asset_keys_when_up(dev: "subprocess.Popen[bytes]", port: int, log: Path) -> list[list[str]]:
    """Dagster's asset keys over GraphQL, as soon as the UI answers."""
    deadline = time.monotonic() + 180
    query = {"query": "{ assetNodes { assetKey { path } } }"}
    while time.monotonic() < deadline and dev.poll() is None:
        try:
            answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json=query, timeout=60)
        except httpx.TransportError:
            time.sleep(0.5)
            continue
        return [node["assetKey"]["path"] for node in answer.json()["data"]["assetNodes"]]
    raise AssertionError(log.read_text())
