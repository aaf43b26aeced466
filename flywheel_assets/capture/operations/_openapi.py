"""The service's OpenAPI 3.1 document, made from the types that decode the requests, so that it cannot differ from them.

What a schema cannot say (which fields a signal needs, how far a clock may be off) is refused with 400 and a sentence.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from flywheel_assets.capture.endpoints import BATCH_TYPE, LINES_TYPE, PLAIN_TYPE, Endpoint
from flywheel_assets.capture.http.answers import Answer, Problem

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


def document(endpoints: Sequence[Endpoint], applications: Iterable[str], version: str) -> dict[str, Any]:
    """The document as JSON values; `applications` may be empty where their names are nobody's business."""
    named = list(applications)
    types = [*(kind for endpoint in endpoints for kind in endpoint.elements), Answer, Problem]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    answer, problem = schemas[-2], schemas[-1]
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
                "requestBody": {"required": True, "content": _contents(endpoint, element)},
                "responses": _responses(answer, problem),
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "flywheel capture", "version": version},
        # Empty: also open, for a service on loopback without keys. A webhook's signature is in headers of its own.
        "security": [{"key": []}, {"browserKey": []}, {}],
        "paths": paths | _operations(problem),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "browserKey": {"type": "apiKey", "in": "query", "name": "key"},
            },
        },
    }


def _contents(endpoint: Endpoint, element: dict[str, Any]) -> dict[str, Any]:
    several = {"type": "array", "items": element, "minItems": 1}
    schema_of = {
        BATCH_TYPE: several,
        PLAIN_TYPE: {"anyOf": [element, several]},
        LINES_TYPE: {"type": "string", "description": "One event per line."},
    }
    return {media_type: {"schema": schema_of.get(media_type, element)} for media_type in endpoint.content_types}


def _responses(answer: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    responses = {
        "202": _json("At least one event is on disk, or was before; `results` has one entry per event.", answer),
        "400": _json("Every event was refused, or the body is not what it says it is.", {"anyOf": [answer, problem]}),
    }
    for status, description in _PROBLEMS.items():
        responses[status] = _json(description, problem)
        if status in _RETRYABLE:
            responses[status]["headers"] = {
                "Retry-After": {
                    "required": True,
                    "description": "Seconds.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
    return responses


def _operations(problem: dict[str, Any]) -> dict[str, Any]:
    status = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    return {
        "/healthz": {
            "get": {
                "summary": "Whether the process lives.",
                "security": [{}],
                "responses": {"200": _json("It does.", status)},
            }
        },
        "/readyz": {
            "get": {
                "summary": "Whether events can be made durable right now.",
                "security": [{}],
                "responses": {"200": _json("They can.", status), "503": _json("They cannot; says why.", problem)},
            }
        },
        "/metrics": {
            "get": {
                "summary": "Counters for Prometheus; needs a key of every application with the scope admin.",
                "responses": {
                    "200": {"description": "Prometheus' text format.", **text},
                    "401": _json(_PROBLEMS["401"], problem),
                    "403": _json(_PROBLEMS["403"], problem),
                    "429": _json(_PROBLEMS["429"], problem),
                },
            }
        },
    }


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
