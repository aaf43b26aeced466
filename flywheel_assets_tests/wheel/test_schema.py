"""Schemathesis sends every route of the review pages, the exclusions and the wheel what it allows and what it forbids.

The pages are for people and publish no description; the one here names every route, or a test fails. Three callers: on
a machine without keys, signed in with a key, and without the key that is needed.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.generation import GenerationMode
from starlette.routing import Route

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.auth.keys import KeyRequest, KeyStore, Scope, create_key
from flywheel_assets.capture.service import running_capture
from flywheel_assets.cli.serving import open_reviewed_rows
from flywheel_assets.review.openid import CALLBACK_PATH
from flywheel_assets.review.pages import build_review_pages
from flywheel_assets.review.sessions import Sessions
from flywheel_assets.settings import isolate_settings
from flywheel_assets.stores import Stores
from flywheel_assets.wheel.pages import build_wheel_pages
from flywheel_assets.wheel.reading import WheelReader
from flywheel_assets_tests.wheel.homes import ASSISTANT, decide, grow_days, noon_after
from flywheel_assets_tests.wheel.test_pages import LINKS, PRICES

CHECKS = [checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance]
EXAMPLES = 12
TEXT = {"type": "string", "maxLength": 300}
NAME = {"name": "name", "in": "path", "required": True, "schema": {"enum": ["review.css", "wheel.css", "no.css"]}}
APPLICATION = {"name": "application", "in": "path", "required": True, "schema": {"enum": ["assistant"]}}
ROW = {"name": "row_id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f:-]{1,40}$"}}
EXCLUSION = {**ROW, "name": "exclusion"}


def ask(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": TEXT} for name in names]


def fill(token: str, **fields: dict[str, Any]) -> dict[str, Any]:
    """The body of a form of ours."""
    given = {"type": "object", "properties": {"token": {"enum": [token]}, **fields}, "required": ["token", *fields]}
    return {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": given}}}


def answer(kind: str) -> dict[str, Any]:
    """What every page may answer: itself, another page, or a refusal. Nothing else, and no 5xx."""
    plain: dict[str, Any] = {"text/plain": {}}
    return {
        "responses": {
            "2XX": {"description": "the page", "content": {kind: {}}},
            "3XX": {"description": "another page"},
            "4XX": {
                "description": "a refusal",
                "content": {kind: {}, **plain, "text/html": {}, "application/json": {}},
            },
        }
    }


def describe(token: str) -> dict[str, Any]:
    """An OpenAPI document of all pages; forms have this token."""
    page, json = answer("text/html"), answer("application/json")
    verb = {"enum": ["accept", "reject", "edit", "label", "skip", "exclude", "none of these", ""]}
    audit = {"who": TEXT, "reason": TEXT, "yes": {"const": False}}
    rule = dict.fromkeys(("user", "prediction", "event", "source", "import"), TEXT)
    days = {name: {"type": "string", "format": "date"} for name in ("from", "to")}
    created = {"type": "object", "properties": {**audit, **rule, **days}, "required": ["who", "reason"]}
    ended = {"type": "object", "properties": audit, "required": ["who", "reason"]}
    paths: dict[str, Any] = {
        "/": {"get": page},
        "/wheel-assets/{name}": {"get": {**answer("text/css"), "parameters": [NAME]}},
        "/wheel-state": {"get": {**json, "parameters": ask("application")}},
        "/wheel/{application}": {"get": {**page, "parameters": [APPLICATION]}},
        "/wheel/{application}/trace": {"get": {**page, "parameters": [APPLICATION, *ask("id", "source")]}},
        "/review": {"get": page},
        "/review/assets/{name}": {"get": {**answer("text/css"), "parameters": [NAME]}},
        "/review/sign-in": {
            "get": {**page, "parameters": ask("to")},
            "post": {**page, "requestBody": fill(token, name=TEXT, key=TEXT, to=TEXT)},
        },
        CALLBACK_PATH: {"get": {**page, "parameters": ask("state", "code", "error")}},
        "/review/sign-out": {"post": {**page, "requestBody": fill("another", to=TEXT)}},
        "/review/queue/{application}": {
            "get": {**page, "parameters": [APPLICATION, *ask("page", "origin", "show")]},
            "post": {**page, "parameters": [APPLICATION], "requestBody": fill(token, row=TEXT, do=verb)},
        },
        "/review/queue/{application}/{row_id}": {
            "get": {**page, "parameters": [APPLICATION, ROW]},
            "post": {
                **page,
                "parameters": [APPLICATION, ROW],
                "requestBody": fill(token, do=verb, text=TEXT, label=TEXT, state=TEXT),
            },
        },
        "/review/decisions/{application}": {
            "get": {**page, "parameters": [APPLICATION]},
            "post": {**page, "parameters": [APPLICATION], "requestBody": fill(token, undo=TEXT)},
        },
        "/review/{application}/trace": {"get": {**page, "parameters": [APPLICATION, *ask("id", "source")]}},
        "/review/{application}/exclusions": {
            "get": {**json, "parameters": [APPLICATION]},
            "post": {
                **json,
                "parameters": [APPLICATION],
                "requestBody": {"content": {"application/json": {"schema": created}}},
            },
        },
        "/review/{application}/exclusions/{exclusion}/end": {
            "post": {
                **json,
                "parameters": [APPLICATION, EXCLUSION],
                "requestBody": {"content": {"application/json": {"schema": ended}}},
            },
        },
    }
    return {"openapi": "3.1.0", "info": {"title": "pages", "version": "1"}, "paths": paths}


OPERATIONS = {
    f"{method.upper()} {path}": given
    for path, methods in describe("")["paths"].items()
    for method, given in methods.items()
}
CASES = [
    (label, mode)
    for label, given in OPERATIONS.items()
    for mode in GenerationMode
    # Where nothing is asked for, nothing is forbidden.
    if mode is GenerationMode.POSITIVE or given.keys() & {"parameters", "requestBody"}
]
OPEN = {f"GET {path}" for path in ("/", "/wheel-state", "/wheel/{application}", "/review/decisions/{application}")}
"""Pages that everyone gets who is let in."""


@dataclass(frozen=True)
class Caller:
    """Someone who asks a running service."""

    url: str
    headers: dict[str, str]
    cookies: dict[str, str]
    token: str
    routes: set[str]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    stores = Stores(isolate_settings(tmp_path_factory.mktemp("home")))
    grow_days(stores, 0, 3)
    decide(stores, "dpo_gold_v1", promoted=True)
    return stores


@contextmanager
def serving(stores: Stores, access: Access) -> Iterator[tuple[str, set[str]]]:
    routes: list[Any] = []

    def pages(event_log: Any, access: Access) -> list[Any]:
        reviewed, sessions = [open_reviewed_rows(ASSISTANT, stores)], Sessions(access, ["assistant"], now)
        traced = {each.name: each.traced for each in reviewed if each.traced}
        review = build_review_pages(event_log, access, reviewed, stores.where.resolve_review_dir(), now, sessions)
        readers = [WheelReader(ASSISTANT, stores)]
        routes.extend([*review, *build_wheel_pages(access, sessions, readers, traced, LINKS, PRICES, now)])
        return routes

    def now() -> Any:
        return noon_after(3)

    names = {"assistant": ASSISTANT.score_contract}
    with running_capture(stores.landing_folder(), names, now, access=access, pages=pages) as running:
        yield (
            f"http://localhost:{running.url.rpartition(':')[2]}",
            {each.path for each in routes if isinstance(each, Route)},
        )


def sign_in(url: str, routes: set[str], key: str) -> Caller:
    with httpx.Client(base_url=url, timeout=60) as client:
        client.post("/review/sign-in", data={"name": "Ann", "key": key}, headers={"origin": url})
        token = re.search(r'name="token" value="([^"]+)"', client.get("/review/decisions/assistant").text)
        found = token or re.search(r'name="token" value="([^"]+)"', client.get("/review").text)
        assert found is not None
        return Caller(url, {"origin": url}, dict(client.cookies), found[1], routes)


@pytest.fixture(scope="module", params=["without keys", "signed in", "signed out"])
def caller(
    request: pytest.FixtureRequest, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caller]:
    if request.param == "without keys":
        with serving(stores, Access()) as (url, routes):
            yield sign_in(url, routes, "")
        return
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    key = create_key(path, KeyRequest("assistant", "reviewers", (Scope.REVIEW,)), noon_after(3))
    with serving(stores, Access(KeyStore(path))) as (url, routes):
        yield sign_in(url, routes, key.secret) if request.param == "signed in" else Caller(url, {}, {}, "-", routes)


def test_every_route_is_described(caller: Caller) -> None:
    assert caller.routes == set(describe("")["paths"])


@pytest.mark.long
@pytest.mark.parametrize(("label", "mode"), CASES)
def test_no_page_answers_what_it_should_not(caller: Caller, label: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(describe(caller.token))
    operations = {found.ok().label: found.ok() for found in schema.get_all_operations()}
    statuses = set()

    @given(st.data())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(data: st.DataObject) -> None:
        case = data.draw(operations[label].as_strategy(generation_mode=mode))
        answered = case.call(
            base_url=caller.url, headers=caller.headers, cookies=caller.cookies, allow_redirects=False, timeout=60
        )
        statuses.add(answered.status_code)
        case.validate_response(answered, checks=CHECKS)
        if not caller.cookies and "assets/" not in label and "sign-" not in label:
            assert answered.status_code in {303, 400, 401, 403, 404, 405}, "nobody gets in without a key"
            assert "dpo_gold_v1" not in answered.text

    send()
    if caller.cookies and mode is GenerationMode.POSITIVE and label in OPEN:
        assert 200 in statuses
