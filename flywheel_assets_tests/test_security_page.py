"""The security page names tests; each of them exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "security.md").read_text()))
    tests = (path.read_text() for path in (ROOT / "flywheel_assets_tests").rglob("test_*.py"))
    defined = {name for text in tests for name in re.findall(r"def (test_\w+)\(", text)}
    assert len(named) > 40
    assert named - defined == set()
