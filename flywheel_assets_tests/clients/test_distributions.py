"""What the clients promise as packages: Python versions, imports, the old import path, copies that stay equal."""

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import flywheel_client

ROOT = Path(__file__).parents[2]
PYTHON_CLIENT, BROWSER_CLIENT = ROOT / "clients" / "python", ROOT / "clients" / "browser"
MINORS = range(9, 15)


@cache
def interpreter(minor: int) -> Path | None:
    """Python 3.`minor` as a command on the path, or as one of the versions of pyenv that its command hides."""
    command = shutil.which(f"python3.{minor}")
    if command is None:
        return None
    hidden = sorted(Path(command).parent.parent.glob(f"versions/3.{minor}.*/bin/python3.{minor}"))
    for candidate in [*hidden, Path(command)]:
        asked = subprocess.run([candidate, "-I", "-c", "import sys; print(sys.version_info[1])"], capture_output=True)
        if asked.returncode == 0 and int(asked.stdout) == minor:
            return candidate
    return None


@pytest.mark.parametrize("minor", MINORS)
def test_every_call_works_on_every_python_that_can_be_had(minor: int) -> None:
    python = interpreter(minor)
    if python is None:
        pytest.skip(f"no python3.{minor} on the path")
    script = Path(__file__).with_name("smoke.py")
    # Python 3.12 and later warn of every fork of a process with threads; the client is made for it.
    command = [python, "-I", "-W", "error", "-W", "ignore:This process:DeprecationWarning", script, PYTHON_CLIENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    retries = result.pop("retries")
    assert retries == 1
    assert result == {
        "signals": [
            *("flywheel.prediction", "thumb", "edit"),
            *("flywheel.prediction", "copy"),
            *("flywheel.prediction", "rating"),
            *("flywheel.prediction", "label"),
            *("edit", "edit", "flywheel.prediction", "thumb", "regenerate", "choice", "demonstration", "retract"),
            *("retract", "copy"),
        ],
        "is_flushed": True,
        "child_status": 0,
        "accepted": 18,
        "dropped": 0,
        "failures": 1,
    }


def test_importing_the_client_brings_no_slow_module_and_nothing_of_the_product() -> None:
    """With http.client, ssl, email, random and uuid the import took more than twice as long."""
    code = f"import sys; sys.path.insert(0, {str(PYTHON_CLIENT)!r}); import flywheel_client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    slow = {"http.client", "ssl", "email", "random", "uuid", "asyncio", "flywheel_assets"}
    assert slow & set(loaded.stdout.split()) == set()


def test_the_old_import_path_gives_the_same_client() -> None:
    from flywheel_assets.capture import client

    assert client.FlywheelClient is flywheel_client.FlywheelClient
    assert {getattr(client, name) for name in client.__all__} == {
        getattr(flywheel_client, name) for name in client.__all__
    }


def test_the_old_import_path_names_the_command_that_installs_the_client() -> None:
    code = "import sys; sys.modules['flywheel_client'] = None; import flywheel_assets.capture.client"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("ImportError: ")
    assert "pip install flywheel-client" in failed.stderr


@pytest.mark.parametrize(
    ("source", "copy"),
    [
        (BROWSER_CLIENT / "flywheel.js", ROOT / "flywheel_assets" / "capture" / "browser" / "flywheel.js"),
        (ROOT / "LICENSE", PYTHON_CLIENT / "LICENSE"),
        (ROOT / "LICENSE", BROWSER_CLIENT / "LICENSE"),
    ],
    ids=["flywheel.js", "licence of the Python client", "licence of the browser client"],
)
def test_a_copy_equals_its_source(source: Path, copy: Path) -> None:
    """A wheel can only hold what lies in its own folder, so some files are there twice."""
    assert copy.read_bytes() == source.read_bytes(), f"run: cp {source} {copy}"


def test_the_npm_package_holds_what_its_description_names() -> None:
    package = json.loads((BROWSER_CLIENT / "package.json").read_text())
    assert {package["main"], package["types"]} <= set(package["files"])
    assert all((BROWSER_CLIENT / name).is_file() for name in package["files"])
