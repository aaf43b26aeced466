from datetime import UTC, datetime, timedelta

import pytest

from flywheel_assets.capture.auth._signatures import (
    REMEMBERED_S,
    TOLERANCE_S,
    ReplayMemory,
    SignedHeaders,
    sign_request,
)
from flywheel_assets.capture.auth.keys import WebhookSecret
from flywheel_assets.capture.http.answers import RefusedError
from flywheel_assets_tests.capture.samples import NOON

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "A" * 32
BODY = b'{"test": 2432232314}'
AT = int(NOON.timestamp())


def held(*secrets: str) -> list[WebhookSecret]:
    return [WebhookSecret(f"key-{n}", "assistant", "crm", secret, NOON) for n, secret in enumerate(secrets)]


def headers(webhook_id: str = "msg_1", timestamp: int | str = AT, signature: str | None = None) -> dict[str, str]:
    at = timestamp if isinstance(timestamp, int) else AT
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign_request(SECRET, webhook_id, at, BODY) if signature is None else signature,
    }


def find_signer(given: dict[str, str], body: bytes = BODY, secrets: list[WebhookSecret] | None = None) -> str:
    return SignedHeaders.read(given, NOON).find_signer(body, secrets or held(SECRET)).key_id


def test_the_specifications_own_example() -> None:
    """The vector that the libraries of Standard Webhooks test themselves with."""
    webhook_id, timestamp = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330
    signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert sign_request(SECRET, webhook_id, timestamp, BODY) == signature
    given = headers(webhook_id, timestamp, signature)
    read = SignedHeaders.read(given, datetime.fromtimestamp(timestamp, UTC))
    assert read.find_signer(BODY, held(SECRET)).key_id == "key-0"


def test_a_flipped_bit_in_any_field_is_refused() -> None:
    good = headers()
    assert find_signer(good) == "key-0"
    for name, value in good.items():
        for position in range(len(value)):
            for bit in range(7):
                flipped = value[:position] + chr(ord(value[position]) ^ (1 << bit)) + value[position + 1 :]
                if name == "webhook-signature" and _same_signature(flipped, value):
                    continue
                with pytest.raises(RefusedError):
                    find_signer(good | {name: flipped})
    for position in range(len(BODY)):
        with pytest.raises(RefusedError):
            find_signer(good, BODY[:position] + bytes([BODY[position] ^ 1]) + BODY[position + 1 :])


def _same_signature(flipped: str, value: str) -> bool:
    """The last character of 32 bytes in base64 carries two bits that mean nothing."""
    from base64 import b64decode
    from binascii import Error

    try:
        return flipped.startswith("v1,") and b64decode(flipped[3:], validate=True) == b64decode(value[3:])
    except (Error, ValueError):
        return False


def test_a_dot_in_the_id_cannot_move_the_seams_between_the_signed_fields() -> None:
    """`a.1` at time 2 signs the same bytes as `a` at a time and a body that begin with the rest."""
    signature = sign_request(SECRET, "a", AT, b"7." + BODY)
    assert signature == sign_request(SECRET, f"a.{AT}", 7, BODY)
    for webhook_id in ("a.1", ".", "", "é", "a b", "\x00", "a\r\nb", "x" * 257):
        with pytest.raises(RefusedError, match="webhook-id must have"):
            find_signer(headers(webhook_id, signature=signature))


@pytest.mark.parametrize(("off_s", "passes"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_stale_and_future_requests_are_refused(off_s: int, passes: bool) -> None:
    if passes:
        assert find_signer(headers(timestamp=AT + off_s)) == "key-0"
    else:
        with pytest.raises(RefusedError, match="301 s away from this server's clock; valid: up to 300 s"):
            find_signer(headers(timestamp=AT + off_s))


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", "1.5", " 1", "٣", "9" * 400])
def test_a_timestamp_is_whole_seconds(timestamp: str) -> None:
    with pytest.raises(RefusedError, match="whole seconds since 1970"):
        find_signer(headers(timestamp=timestamp, signature="v1,AAAA"))


@pytest.mark.parametrize("signature", ["", "v1", "v1,", "v2,AAAA", "v1,é", "v1,=", "AAAA", "v1, AAAA", ","])
def test_signatures_that_are_none(signature: str) -> None:
    with pytest.raises(RefusedError):
        find_signer(headers(signature=signature))


def test_a_rotation_signs_with_both_secrets_and_is_verified_with_either() -> None:
    both = f"{sign_request(OTHER, 'msg_1', AT, BODY)} v1a,ignored {sign_request(SECRET, 'msg_1', AT, BODY)}"
    assert find_signer(headers(signature=both)) == "key-0"
    assert find_signer(headers(), secrets=held(OTHER, SECRET)) == "key-1"
    with pytest.raises(RefusedError, match="no secret of this application"):
        find_signer(headers(), secrets=held(OTHER))


def test_an_id_is_remembered_for_twice_the_window_and_per_application() -> None:
    memory, now = ReplayMemory(), NOON.timestamp()
    memory.remember("assistant", "msg_1", now)
    assert REMEMBERED_S >= 2 * TOLERANCE_S
    assert memory.has_seen("assistant", "msg_1", now + REMEMBERED_S - 1)
    assert not memory.has_seen("assistant", "msg_1", now + REMEMBERED_S)
    assert not memory.has_seen("copilot", "msg_1", now)
    assert not memory.has_seen("assistant", "msg_2", now)


def test_the_memory_is_bounded_and_forgets_the_oldest_first() -> None:
    memory, now = ReplayMemory(capacity=100), NOON.timestamp()
    for number in range(1_000):
        memory.remember("assistant", str(number), now)
    assert len(memory) == 100
    assert memory.has_seen("assistant", "999", now)
    assert not memory.has_seen("assistant", "899", now)
    later = now + timedelta(hours=1).total_seconds()
    memory.remember("assistant", "x", later)
    assert len(memory) == 1
