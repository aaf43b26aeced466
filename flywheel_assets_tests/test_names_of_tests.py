"""The workers of one run collect the tests each for itself; where two names differ, nothing runs at all."""

import gzip
import time

import pytest


@pytest.mark.parametrize("body", [gzip.compress(b"{}"), gzip.compress(b"[]", mtime=time.time_ns() % 2**32)])
def test_bytes_that_hold_the_time_are_not_in_the_name(request: pytest.FixtureRequest, body: bytes) -> None:
    assert gzip.decompress(body)
    assert request.node.name.endswith(("[body0]", "[body1]"))
