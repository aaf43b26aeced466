from pathlib import Path

import pytest

from flywheel_assets_tests.lake.workbench import Workbench


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)
