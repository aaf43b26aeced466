"""What each kind of sender may hold of the memory for bodies, and cost by its address."""

import contextlib

import pytest

from flywheel_assets.capture.http.admission import (
    PAGE_EVENTS_PER_S,
    STRANGER_REQUESTS_PER_S,
    Admission,
    Standing,
    group_address,
)
from flywheel_assets.capture.http.answers import Refusal, RefusedError
from flywheel_assets.capture.http.bodies import BodyReader, Share
from flywheel_assets_tests.capture.samples import Seconds

MIB = 2**20


def _fill(admission: Admission, standing: Standing, holders: int, held: contextlib.ExitStack) -> int:
    """Take as much as so many holders can."""
    for number in range(holders):
        share: Share = held.enter_context(admission.open_share(standing, f"holder {number}"))
        with contextlib.suppress(RefusedError):
            while True:
                share.take(MIB)
    return admission.budget.held_bytes


@pytest.mark.parametrize(
    ("standing", "holders", "least", "most"),
    [
        (Standing.STRANGER, 1, 7, 8),
        (Standing.STRANGER, 100, 15, 16),
        (Standing.PAGE, 1, 15, 16),
        (Standing.PAGE, 100, 63, 64),
        (Standing.KEY, 1, 95, 96),
        (Standing.KEY, 2, 127, 128),
        (Standing.OPEN, 1, 127, 128),
    ],
)
def test_each_kind_of_sender_fills_its_part_and_no_more(
    standing: Standing, holders: int, least: int, most: int
) -> None:
    admission = Admission(128 * MIB, BodyReader(32 * MIB))
    with contextlib.ExitStack() as held:
        assert least * MIB <= _fill(admission, standing, min(holders, 50), held) <= most * MIB
    assert admission.budget.held_bytes == 0
    with admission.open_share(standing, "another") as share:
        share.take(MIB)


def test_strangers_and_pages_together_leave_room_for_keys() -> None:
    admission = Admission(128 * MIB, BodyReader(32 * MIB))
    with contextlib.ExitStack() as held:
        _fill(admission, Standing.STRANGER, 20, held)
        _fill(admission, Standing.PAGE, 20, held)
        share = held.enter_context(admission.open_share(Standing.KEY, "backend"))
        share.take(32 * MIB)


@pytest.mark.parametrize(
    ("standing", "per_s"), [(Standing.STRANGER, STRANGER_REQUESTS_PER_S), (Standing.PAGE, PAGE_EVENTS_PER_S)]
)
def test_an_address_waits_until_its_debt_is_paid(standing: Standing, per_s: float) -> None:
    seconds = Seconds()
    admission = Admission(128 * MIB, BodyReader(32 * MIB), seconds)
    admission.charge_address(standing, "10.0.0.1", int(per_s * 12))
    with pytest.raises(RefusedError) as refused:
        admission.open_share(standing, "10.0.0.1")
    assert refused.value.reason is Refusal.RATE_LIMITED
    assert refused.value.retry_after_s == pytest.approx(2, abs=0.1)
    admission.open_share(standing, "10.0.0.2")
    admission.open_share(Standing.KEY, "10.0.0.1")
    seconds.now += 2.1
    admission.open_share(standing, "10.0.0.1")


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("a:b", "a:b"),
        ("", ""),
    ],
)
def test_addresses_are_counted_by_whom_they_belong_to(host: str, group: str) -> None:
    assert group_address(host) == group
