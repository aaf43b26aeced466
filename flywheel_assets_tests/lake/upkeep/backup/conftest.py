from pathlib import Path

import pytest

from flywheel_assets_tests.lake.upkeep.backup.homes import make_home
from flywheel_assets_tests.prepared import PreparedFolder


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedFolder:
    root = tmp_path_factory.mktemp("homes") / "home"
    make_home(root)
    return PreparedFolder(root)


@pytest.fixture
def home(_prepared: PreparedFolder) -> Path:
    """A whole home, always at one path."""
    return _prepared.restored()
