"""CloudEvents in binary mode: attributes come in headers, as the HTTP binding of CloudEvents 1.0 writes them."""

import msgspec
import pytest

from flywheel_assets.capture.http.answers import RefusedError
from flywheel_assets.capture.http.binary_mode import build_structured_event

DATA = b'{"prompt": "How?"}'


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("plain", "plain"),
        ("caf%C3%A9", "caf\u00e9"),
        ('"quoted"', "quoted"),
        ('"a \\"b\\" \\\\ c"', 'a "b" \\ c'),
        ("%22still quoted%22", '"still quoted"'),
        ('"', '"'),
        (" spaced ", "spaced"),
        ("100%", "100%"),
    ],
)
def test_values_are_unquoted_and_decoded(written: str, read: str) -> None:
    event = msgspec.json.decode(build_structured_event({"ce-id": written, "content-type": "application/json"}, DATA))
    assert event == {"id": read, "data": {"prompt": "How?"}}


def test_a_header_cannot_replace_the_data() -> None:
    event = msgspec.json.decode(build_structured_event({"ce-data": "x", "ce-source": "app"}, DATA))
    assert event == {"source": "app", "data": {"prompt": "How?"}}


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(RefusedError, match="the header ce-id is no UTF-8"):
        build_structured_event({"ce-id": "%ff"}, DATA)


@pytest.mark.parametrize("body", [b"", b" \n"])
def test_an_event_without_data_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError, match="no data in the body"):
        build_structured_event({"ce-id": "e"}, body)
