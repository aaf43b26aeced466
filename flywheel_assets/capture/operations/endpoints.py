"""Answers operators and clients: health, readiness, metrics, the OpenAPI document, `flywheel.js`.

The OpenAPI 3.1 document is built from the types that decode the requests, so that it cannot differ from them. Rules
that a schema cannot express (the fields that a signal needs, the tolerance of a clock) are refused with 400 and a
sentence.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from flywheel_assets.capture.auth.access import Access, require_scope
from flywheel_assets.capture.auth.keys import EVERY_APPLICATION, Scope
from flywheel_assets.capture.endpoints import (
    BATCH_TYPE,
    LINES_TYPE,
    LONGEST_REASON,
    PLAIN_TYPE,
    PROTOBUF_TYPE,
    RECORDS_PATH,
    RETRACTION_PATH,
    TRACES_PATH,
    Endpoint,
    EventLog,
)
from flywheel_assets.capture.events.texts import EDITS_SOURCE
from flywheel_assets.capture.events.traces import TraceRequest
from flywheel_assets.capture.http.answers import RETRY_AFTER_S, Answer, Problem, RecordsAnswer, build_json_response
from flywheel_assets.capture.operations.telemetry import EXPOSITION_TYPE, Telemetry
from flywheel_assets.formats.catalog import AUTO
from flywheel_assets.wire import LONGEST_IDENTIFIER


class _Status(msgspec.Struct, frozen=True):
    status: str


@dataclass(frozen=True)
class Operations:
    """Handles `/healthz`, `/readyz`, `/metrics` and `/openapi.json`."""

    event_log: EventLog
    telemetry: Telemetry
    document: bytes

    @classmethod
    def build(
        cls,
        event_log: EventLog,
        telemetry: Telemetry,
        access: Access,
        endpoints: Sequence[Endpoint],
        applications: Sequence[str],
    ) -> "Operations":
        """Build the handlers with these endpoints' document. It names the applications only where no key is needed."""
        described: dict[str, Any] = build_document(
            endpoints, applications if access.is_open else (), version("flywheel_assets")
        )
        return cls(event_log, telemetry, msgspec.json.encode(described))

    async def answer_healthz(self, _: Request) -> Response:
        """Answer 200: the process lives and its event loop turns."""
        return build_json_response(200, _Status("ok"))

    async def answer_readyz(self, _: Request) -> Response:
        """Answer 200 while events can be made durable, else 503, so that a load balancer sends them elsewhere."""
        problem = self.event_log.find_problem()
        if problem is None:
            return build_json_response(200, _Status("ready"))
        return build_json_response(503, Problem(problem), {"Retry-After": str(RETRY_AFTER_S)})

    async def answer_metrics(self, request: Request) -> Response:
        """Answer with the counters. They show how much every application sends, so they are for admins."""
        require_scope(request, EVERY_APPLICATION, Scope.ADMIN)
        return Response(self.telemetry.render(), headers={"content-type": EXPOSITION_TYPE})

    async def answer_openapi(self, _: Request) -> Response:
        """Answer with the OpenAPI document."""
        return Response(self.document, media_type="application/json")


_CACHED_S = 3600


@cache
def _read_script() -> tuple[bytes, str]:
    """Read the file and compute its entity tag."""
    content = files("flywheel_assets.capture").joinpath("browser", "flywheel.js").read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


async def answer_browser_script(request: Request) -> Response:
    """Answer with `flywheel.js`. Any page may load it: a page's right to send is decided where it sends."""
    content, tag = _read_script()
    headers = {
        "ETag": tag,
        "Cache-Control": f"public, max-age={_CACHED_S}",
        "Access-Control-Allow-Origin": "*",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type="text/javascript")


_PROBLEMS = {
    "401": "No valid key or signature.",
    "403": "The key is for something else, or the page's origin is not allowed.",
    "404": "Unknown application.",
    "408": "The body did not arrive in time.",
    "413": "The request is too large, or holds too many events.",
    "415": "The content type or encoding is not read here.",
    "429": "The key has used up its rate.",
    "503": "Queue, disk or memory is full: nothing was acknowledged.",
}
_RETRYABLE = ("429", "503")


def build_document(endpoints: Sequence[Endpoint], applications: Iterable[str], version: str) -> dict[str, Any]:
    """Build the document as JSON values; `applications` is empty where their names must stay private."""
    named = list(applications)
    types = [
        *(kind for endpoint in endpoints for kind in endpoint.elements),
        TraceRequest,
        RecordsAnswer,
        Answer,
        Problem,
    ]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    traces, taken, answer, problem = schemas[-4:]
    remaining = iter(schemas)
    application: dict[str, Any] = {"type": "string"}
    if named:
        application["enum"] = sorted(named)
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        kinds = [next(remaining) for _ in endpoint.elements]
        element = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        paths[f"/v1/{{application}}/{endpoint.name}"] = {
            "parameters": [{"name": "application", "in": "path", "required": True, "schema": application}],
            "post": {
                "operationId": endpoint.name,
                "summary": endpoint.summary,
                "requestBody": {"required": True, "content": _describe_contents(endpoint, element)},
                "responses": _describe_responses(answer, problem),
            },
        }
    paths[TRACES_PATH] = _describe_traces(application, traces)
    paths[RECORDS_PATH] = _describe_records(application, taken, problem)
    paths[RETRACTION_PATH.replace(":anything", "")] = _describe_retraction(application, answer, problem)
    return {
        "openapi": "3.1.0",
        "info": {"title": "flywheel capture", "version": version},
        # The empty entry stands for a service on loopback without keys. A webhook's signature has its own headers.
        "security": [{"key": []}, {"browserKey": []}, {}],
        "paths": paths | _describe_operations(problem),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "browserKey": {"type": "apiKey", "in": "query", "name": "key"},
            },
        },
    }


def _describe_traces(application: dict[str, Any], traces: dict[str, Any]) -> dict[str, Any]:
    """Describe the endpoint whose shapes OpenTelemetry defines: a `Status` is the body of every refusal."""
    binary = {"type": "string", "format": "binary"}
    status = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
    partial = {
        "type": "object",
        "properties": {"rejectedSpans": {"type": "string"}, "errorMessage": {"type": "string"}},
    }
    response = {"type": "object", "properties": {"partialSuccess": partial}}
    responses = {
        "200": _describe_json(
            "Every span is on disk or is no call of a model; `partialSuccess` counts others.", response
        ),
        **_describe_problems(status),
        "400": _describe_json("The body is not what it says it is.", status),
    }
    for each in responses.values():
        each["content"] = {**each["content"], PROTOBUF_TYPE: {"schema": binary}}
    return {
        "parameters": [{"name": "application", "in": "path", "required": True, "schema": application}],
        "post": {
            "operationId": "traces",
            "summary": "Spans of calls of a model, as OpenTelemetry's exporters send them (OTLP/HTTP).",
            "requestBody": {
                "required": True,
                "content": {PROTOBUF_TYPE: {"schema": binary}, PLAIN_TYPE: {"schema": traces}},
            },
            "responses": responses,
        },
    }


def _describe_records(application: dict[str, Any], taken: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    """Describe the endpoint whose bodies show themselves what they are, whatever their type says."""
    parameters = (
        ("format", "The format's name; auto finds it.", {"type": "string", "default": AUTO}),
        ("history", "Whether rows land on their own days; needs a key of the scope import.", {"type": "boolean"}),
        ("reason", "Why history lands; kept for audits.", {"type": "string", "maxLength": LONGEST_REASON}),
    )
    binary = {"type": "string", "format": "binary"}
    return {
        "parameters": [
            {"name": "application", "in": "path", "required": True, "schema": application},
            *(
                {"name": name, "in": "query", "description": description, "schema": schema}
                for name, description, schema in parameters
            ),
        ],
        "post": {
            "operationId": "records",
            "summary": "Exports and webhooks of other systems: JSON, JSON lines, CSV, TSV or Parquet.",
            "requestBody": {
                "required": True,
                "content": {
                    PLAIN_TYPE: {"schema": {"anyOf": [{"type": "object"}, {"type": "array"}]}},
                    LINES_TYPE: {"schema": {"type": "string", "description": "One record per line."}},
                    "text/csv": {"schema": {"type": "string"}},
                    "application/octet-stream": {"schema": binary},
                },
            },
            "responses": {
                "202": _describe_json("Every accepted record is on disk.", taken),
                "400": _describe_json(
                    "Every record was refused, or the body is not what it seems to be.", {"anyOf": [taken, problem]}
                ),
                **_describe_problems(problem),
            },
        },
    }


def _describe_retraction(
    application: dict[str, Any], answer: dict[str, Any], problem: dict[str, Any]
) -> dict[str, Any]:
    identifier = {"type": "string", "minLength": 1, "maxLength": LONGEST_IDENTIFIER}
    responses = _describe_responses(answer, problem)
    del responses["408"], responses["413"], responses["415"]  # there is no body
    return {
        "parameters": [
            {"name": "application", "in": "path", "required": True, "schema": application},
            {"name": "feedback_id", "in": "path", "required": True, "schema": identifier},
            {
                "name": "source",
                "in": "query",
                "description": "The source that sent the feedback.",
                "schema": {**identifier, "default": EDITS_SOURCE},
            },
        ],
        "delete": {
            "operationId": "retract",
            "summary": "Takes back the edit or the feedback that this source sent under this id.",
            "responses": responses,
        },
    }


def _describe_contents(endpoint: Endpoint, element: dict[str, Any]) -> dict[str, Any]:
    several = {"type": "array", "items": element, "minItems": 1}
    schema_of = {
        BATCH_TYPE: several,
        PLAIN_TYPE: {"anyOf": [element, several]},
        LINES_TYPE: {"type": "string", "description": "One event per line."},
    }
    return {media_type: {"schema": schema_of.get(media_type, element)} for media_type in endpoint.content_types}


def _describe_responses(answer: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    responses = {
        "202": _describe_json(
            "At least one event is on disk, or was before; `results` has one entry per event.", answer
        ),
        "400": _describe_json(
            "Every event was refused, or the body is not what it says it is.", {"anyOf": [answer, problem]}
        ),
    }
    return responses | _describe_problems(problem)


def _describe_problems(problem: dict[str, Any]) -> dict[str, Any]:
    responses = {}
    for status, description in _PROBLEMS.items():
        responses[status] = _describe_json(description, problem)
        if status in _RETRYABLE:
            responses[status]["headers"] = {
                "Retry-After": {
                    "required": True,
                    "description": "Seconds.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
    return responses


def _describe_operations(problem: dict[str, Any]) -> dict[str, Any]:
    status = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "/healthz": {
            "get": {
                "summary": "Whether the process lives.",
                "security": [{}],
                "responses": {"200": _describe_json("It does.", status)},
            }
        },
        "/readyz": {
            "get": {
                "summary": "Whether events can be made durable right now.",
                "security": [{}],
                "responses": {
                    "200": _describe_json("They can.", status),
                    "503": _describe_json("They cannot; says why.", problem),
                },
            }
        },
        "/metrics": {
            "get": {
                "summary": "Counters for Prometheus; needs a key of every application with the scope admin.",
                "responses": {
                    "200": {"description": "Prometheus' text format.", **text},
                    "401": _describe_json(_PROBLEMS["401"], problem),
                    "403": _describe_json(_PROBLEMS["403"], problem),
                    "429": _describe_json(_PROBLEMS["429"], problem),
                },
            }
        },
    }


def _describe_json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
