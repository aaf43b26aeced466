"""What `pip install flywheel_assets` would bring: a source distribution and a wheel that are whole."""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from flywheel_assets import __version__

ROOT = Path(__file__).parent.parent
_BUILD = "import setuptools.build_meta as b, sys; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


def build(source: Path, kind: str, out: Path) -> Path:
    built = subprocess.run(
        [sys.executable, "-c", _BUILD, kind, str(out)], cwd=source, capture_output=True, text=True, check=True
    )
    return out / built.stdout.splitlines()[-1]


def list_tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


def copy_checkout(target: Path) -> Path:
    """Copy what git tracks: a build in the checkout itself would leave a folder there."""
    for name in list_tracked_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
    return target


@pytest.mark.long
def test_the_distributions_hold_the_whole_package_and_start_in_an_empty_environment(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout to build a release from")
    checkout, out = copy_checkout(tmp_path / "checkout"), tmp_path / "out"
    out.mkdir()

    # The wheel is built from what the source distribution holds, as an installer without a wheel would.
    with tarfile.open(build(checkout, "sdist", out)) as packed:
        packed.extractall(tmp_path, filter="data")
    wheel = build(tmp_path / f"flywheel_assets-{__version__}", "wheel", out)
    wanted = {name for name in list_tracked_files() if name.startswith("flywheel_assets/")}
    assert wanted - set(zipfile.ZipFile(wheel).namelist()) == set()

    empty = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", str(empty)], check=True)
    offline = ("--no-index", "--no-deps", "--disable-pip-version-check", "-q")
    subprocess.run([empty / "bin" / "python", "-m", "pip", "install", *offline, str(wheel)], check=True)
    # No registry is needed for a test: the dependencies are those of this environment, without what is editable in it.
    [site] = empty.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    shown = subprocess.run(
        [empty / "bin" / "flywheel", "--version"], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert shown.stdout == f"flywheel_assets {__version__}\n"
    started = subprocess.run(
        [empty / "bin" / "flywheel", "init", "mine"], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    )
    assert "wrote mine/" in started.stdout
    where = [empty / "bin" / "python", "-I", "-c", "import flywheel_assets; print(flywheel_assets.__file__)"]
    found = subprocess.run(where, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(site)


def test_the_release_is_named_once() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
