"""Reads requests that Helicone's API and export tool give, with their bodies.

An answer's id is the `request_id`, which callers find in the header `helicone-id`. `feedback_rating` is a thumb; of the
`scores` only those count whose names speak of people.
"""

from collections.abc import Mapping, Sequence

from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.format import Event, Format
from flywheel_assets.formats.logs.calls import parse_json, read_answer, read_prompt, read_tools
from flywheel_assets.formats.logs.shapes import check_shape, read_mapping, read_text
from flywheel_assets.formats.record import Record
from flywheel_assets.formats.statements import is_of_people, predict, score

NAME = "helicone"
_FEEDBACK = "helicone-score-feedback"
"""The score under which Helicone also keeps its thumbs."""
_FIRST_ERROR = 400


def matches(record: Record) -> bool:
    """Return whether it is a request that Helicone logged."""
    values = record.values
    has_more = any(
        name in values for name in ("response_body", "request_body", "request_properties", "llmSchema", "helicone_user")
    )
    return "request_id" in values and has_more and "call_type" not in values


def convert(record: Record) -> Sequence[Event]:
    """Turn a request into a prediction and the feedback that it carries."""
    check_shape(matches(record), "a request that Helicone logged", record)
    request_id = record.get_id("request_id")
    if request_id is None:
        raise InvalidEventError("the request has no `request_id`")
    user = record.get_id("request_user_id") or record.get_id("helicone_user") or record.get_id("user_id")
    properties = read_mapping(parse_json(record.get("request_properties") or record.get("properties")))
    session = next(
        (read_text(each) for name, each in properties.items() if name.lower() == "helicone-session-id"), None
    )
    events: list[Event] = []
    problem: InvalidEventError | None = None
    try:
        events.append(_predict(record, request_id, user, session))
    except InvalidEventError as error:
        problem = error
    events.extend(_judge(record, request_id, user))
    if problem is not None and not events:
        raise problem
    return events


def _predict(record: Record, request_id: str, user: str | None, session: str | None) -> Event:
    status = record.get("response_status")
    if isinstance(status, int) and (status >= _FIRST_ERROR or status < 0):
        raise InvalidEventError(f"the call failed: response_status {status}")
    asked, answered = parse_json(record.get("request_body")), parse_json(record.get("response_body"))
    schema = read_mapping(parse_json(record.get("llmSchema")))
    prompt, answer = read_prompt(asked), read_answer(answered)
    if prompt is None or answer is None:
        asked, answered = schema.get("request"), read_mapping(schema.get("response"))
        prompt, answer = read_prompt(asked), read_answer(answered.get("messages") or answered.get("message"))
    if prompt is None and record.get("signed_body_url"):
        raise InvalidEventError(
            "the bodies are not in the record, only `signed_body_url`; export with "
            "`npx @helicone/export --include-body`"
        )
    return predict(
        NAME,
        request_id,
        request_id,
        prompt,
        answer,
        time=record.get_time("response_created_at") or record.get_time("request_created_at"),
        model_version=next(
            (found for name in ("response_model", "request_model", "model") if (found := read_text(record.get(name)))),
            read_text(read_mapping(answered).get("model")),
        ),
        user_id=user or read_text(read_mapping(asked).get("user")),
        thread_id=session,
        tools=read_tools(asked),
    )


def _judge(record: Record, request_id: str, user: str | None) -> list[Event]:
    rating = record.get("feedback_rating")
    time = record.get_time("feedback_created_at") or record.get_time("request_created_at")
    feedback = parse_json(record.get("request_feedback") or record.get("feedback"))
    comment = None
    if isinstance(feedback, Mapping):
        rating = feedback.get("rating") if rating is None else rating
        comment = read_text(feedback.get("comment"))
    scores = read_mapping(parse_json(record.get("scores")))
    if rating is None:
        rating = scores.get(_FEEDBACK)
    event_id = record.get_id("feedback_id") or f"{request_id}/feedback"
    events: list[Event] = []
    if rating is not None or comment:
        found = score(NAME, event_id, request_id, "feedback", rating, is_alone=False, comment=comment, time=time,
                      user_id=user)  # fmt: skip
        events.extend([] if found is None else [found])
    for name, value in scores.items():
        if name != _FEEDBACK and is_of_people(name):
            value = read_mapping(value).get("value") if isinstance(value, Mapping) else value
            found = score(NAME, f"{request_id}/{name}", request_id, name, value, is_alone=False, time=time,
                          user_id=user)  # fmt: skip
            events.extend([] if found is None else [found])
    return events


FORMAT = Format(
    name=NAME, title="Helicone: requests with bodies", matches=matches, convert=convert, has_global_ids=True
)
