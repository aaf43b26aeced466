"""The promises about imports that import-linter cannot see: what loading a code location costs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["torch", "transformers", "trl", "peft", "datasets", "mlflow", "matplotlib", "pandas", "lightgbm", "sklearn"]


@pytest.mark.long
@pytest.mark.parametrize(
    "module",
    [
        "flywheel_assets.applications.assistant",
        "flywheel_assets.applications.fraud",
        "flywheel_assets.capture.service",
        "flywheel_assets.capture.brokers.drain",
        "flywheel_assets.cli",
        "flywheel_assets.wheel.pages",
    ],
)
def test_loading_imports_nothing_heavy(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    loaded = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(loaded.stdout) == []


def test_no_room_has_more_modules_than_a_reader_keeps_apart() -> None:
    """`curation/texts` had grown to 19 before this was asked."""
    product = Path(__file__).parent.parent / "flywheel_assets"
    sizes = {
        folder.parent: sum(file.name != "__init__.py" for file in folder.parent.glob("*.py"))
        for folder in product.rglob("__init__.py")
    }
    # The root holds what every room uses.
    assert {str(room): size for room, size in sizes.items() if room != product and size > 15} == {}


@pytest.mark.long
@pytest.mark.parametrize("name", ["assistant", "fraud"])
def test_loading_a_code_location_warns_of_nothing(name: str) -> None:
    """A rewritten docstring of `defs` had lost the filter below it: every command printed Dagster's beta warnings."""
    loaded = subprocess.run(
        [sys.executable, "-c", f"import flywheel_assets.applications.{name}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Warning" not in loaded.stderr


def test_the_command_line_imports_no_room_before_a_command_runs() -> None:
    """`flywheel --help` took 1.5 s of CPU, most of it for pyarrow, DuckDB, pydantic and our own rooms."""
    code = (
        "import sys, flywheel_assets.cli; heavy = ('dagster', 'pyarrow', 'duckdb', 'numpy', 'pydantic', 'starlette',"
        "'flywheel_assets.application', 'flywheel_assets.settings');"
        "print(sorted(set(heavy) & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
