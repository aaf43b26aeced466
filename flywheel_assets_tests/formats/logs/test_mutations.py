"""Records that are nearly right: each becomes events that land, or one reason."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flywheel_assets.capture.events.texts import Reception, land_cloud_event
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.catalog import FORMATS
from flywheel_assets.formats.format import Format
from flywheel_assets.formats.logs import FORMATS as LOGS
from flywheel_assets.formats.record import Record
from flywheel_assets.wire import FeedbackCloudEvent, PredictionCloudEvent
from flywheel_assets_tests.formats.logs import (
    test_continue_dev,
    test_gateways,
    test_langfuse,
    test_langsmith,
    test_mlflow_traces,
    test_open_webui,
    test_openai_logs,
    test_spans,
)
from flywheel_assets_tests.formats.logs.readings import NOW

RECORDS: list[dict[str, Any]] = [
    test_openai_logs.STORED,
    test_open_webui.FEEDBACK,
    {"id": "c", "user_id": "p", "chat": {"history": {"messages": test_open_webui.MESSAGES, "currentId": "a1"}}},
    test_langfuse.TRACE,
    test_langfuse.GENERATION,
    test_langfuse.SCORE,
    test_langsmith.RUN,
    test_langsmith.FEEDBACK,
    test_spans.make_request(
        test_spans.make_span(
            test_spans.CHAT,
            events=[test_spans.make_event("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "thumb"})],
        ),
        test_spans.make_span(test_spans.OPENINFERENCE, "other", links=[{"traceId": "t", "spanId": "s"}]),
    ),
    test_spans.PHOENIX,
    test_spans.NOTE,
    test_gateways.PAYLOAD,
    test_gateways.REQUEST,
    test_gateways.GENERATION,
    test_continue_dev.CHAT,
    test_continue_dev.EDIT,
    test_continue_dev.TAB,
    test_mlflow_traces.TRACE,
]
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(10**300, 10**301), st.floats(), st.text(max_size=8),
    st.sampled_from(["", "[]", "{}", '"', "[[1]]", '{"role": "user"}', "0", "a" * 2000, [], {}, [None], [[]], {"": 1},
                     [{"role": "user", "content": [{"type": "text"}]}], {"role": "tool", "tool_calls": "x"}]),
)  # fmt: skip


def list_places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, each in inner for place in [(*path, key), *list_places(each, (*path, key))]]


def change(record: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    holder: Any = record
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = copy.deepcopy(value)


@pytest.mark.long
@pytest.mark.parametrize("record", RECORDS, ids=lambda record: next(iter(record)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_changed_records_become_events_or_one_reason(record: dict[str, Any], data: st.DataObject) -> None:
    changed = copy.deepcopy(record)
    for _ in range(data.draw(st.integers(1, 3))):
        change(changed, data.draw(st.sampled_from(list_places(changed))), data.draw(LEAVES))
    assert sum(each.matches(Record(changed)) for each in FORMATS) <= 1
    for each in LOGS:
        if not each.matches(Record(changed)):
            continue
        try:
            events = each.convert(Record(changed))
        except InvalidEventError:
            return
        for event in events:
            assert isinstance(event, PredictionCloudEvent | FeedbackCloudEvent)
            try:
                land_cloud_event(event, Reception("chat", NOW), f"import:{each.name}")
            except InvalidEventError as error:  # a time outside of what capture takes
                assert str(error).startswith(("time is", "`value`"))  # noqa: PT017 - which fault it is


@pytest.mark.parametrize("each", LOGS, ids=lambda each: each.name)
def test_another_formats_record_gives_a_reason(each: Format) -> None:
    """Of a record that it did not know, a format that was named said nothing at all."""
    with pytest.raises(InvalidEventError, match="its fields: chosen, prompt, rejected"):
        each.convert(Record({"prompt": "a", "chosen": "b", "rejected": "c"}))
