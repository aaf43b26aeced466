import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel_assets.lake.landing.s3 import ObjectLanding
from flywheel_assets_tests.lake.workbench import Workbench
from flywheel_assets_tests.s3_server import S3Server, s3_server

_numbers = itertools.count()


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def landing(server: S3Server) -> ObjectLanding:
    """A landing root of its own, in a bucket that keeps no versions."""
    return ObjectLanding.from_uri(f"s3://{server.bucket}/landing-{next(_numbers)}/", server.client)
