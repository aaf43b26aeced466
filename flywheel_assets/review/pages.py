"""Serves the pages: the queue, one item, the decisions so far, and signing in.

Plain forms; the script only adds keys.

The way of one decision: `POST /review/queue/assistant/<row>` → origin, session and form token are checked → the item is
looked up in the queue (another reviewer may have been faster) → `decisions.event_of` makes the feedback event → the
service's event log makes it durable → the index notes it → 303 to the next item.

No answer holds markup that was not written in `templates/`: everything else passes through Jinja's autoescaping, and
the content security policy forbids inline scripts, styles, frames and foreign forms besides. No user text is logged.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from flywheel_assets.capture.auth.access import Access
from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.endpoints import EventLog
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.http.answers import RefusedError
from flywheel_assets.capture.http.bodies import BodyReader, MemoryBudget
from flywheel_assets.errors import EventLogError
from flywheel_assets.lake.whatif.trace import trace_event
from flywheel_assets.records import LONGEST_TEXT_CHARACTERS
from flywheel_assets.review._diff import Mark, Piece, compare_words, cut_excerpt, cut_pieces, remove_unseen
from flywheel_assets.review._exclusion_api import build_exclusion_routes
from flywheel_assets.review.decisions import (
    SAMPLED,
    Decision,
    DecisionIndex,
    Verb,
    build_event,
    build_undo,
    identify_decision,
    is_correction,
)
from flywheel_assets.review.openid import CALLBACK_PATH, STATE_COOKIE, OpenIdProvider, OpenIdSettings
from flywheel_assets.review.proxy import TrustedProxy
from flywheel_assets.review.queue import MOST_ITEMS, REASONS, THUMBS_DOWN, Item, Order, Reviewed, ReviewQueue
from flywheel_assets.review.sessions import (
    COOKIE,
    PageRefusal,
    Session,
    Sessions,
    check_form_token,
    check_sent_from_here,
)
from flywheel_assets.review.static_files import answer_asset

ITEMS_ON_A_PAGE = 25
MOST_DECISIONS_SHOWN = 200
LONGEST_SHOWN = 60_000
"""Characters of one text on a page: longer texts never become pairs, and prompts may have megabytes."""
LONGEST_EXCERPT = 140
"""Characters of a text in a row of the queue."""
LONGEST_ID = 512
"""Characters of an id or a source in the search field."""
_FORM_BYTES = 2**20
_FORMS_AT_ONCE_BYTES = 16 * 2**20
_MOST_FIELDS = 4 + ITEMS_ON_A_PAGE

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: forms would then come with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_WHEEL_PAGE = re.compile(r"/(wheel/[a-z][a-z0-9_]*)?")
_ASSETS = {"review.css": "text/css", "review.js": "text/javascript"}

Handler = Callable[[Request], Awaitable[Response]]


def build_review_pages(
    event_log: EventLog,
    access: Access,
    reviewed: Sequence[Reviewed],
    index_dir: Path,
    clock: Clock = read_clock,
    sessions: Sessions | None = None,
    proxy: TrustedProxy | None = None,
    openid: OpenIdSettings | None = None,
) -> list[BaseRoute]:
    """Build the routes under `/review`, which the capture service serves with its own.

    Args:
        event_log: takes the decisions.
        access: maps keys to the applications that they open.
        reviewed: the applications whose rows are reviewed.
        index_dir: holds one index of decisions per application.
        clock: the present, UTC.
        sessions: where other pages share them; else they are this call's own.
        proxy: signs reviewers in, in place of keys and typed names, where the sessions are this call's own.
        openid: the provider that does so.

    Raises:
        SettingsError: both are given.
    """
    queues = {each.name: ReviewQueue(each, DecisionIndex(index_dir / f"{each.name}.jsonl")) for each in reviewed}
    provider = None if openid is None else OpenIdProvider(openid, clock)
    sessions = sessions or Sessions(access, sorted(queues), clock, proxy, provider)
    pages = _Pages(event_log, sessions, queues, clock)
    return [
        Route("/review", pages.wrap(pages.serve_home), methods=["GET"]),
        Route("/review/assets/{name}", pages.wrap(pages.serve_asset), methods=["GET"]),
        Route("/review/sign-in", pages.wrap(pages.sign_in), methods=["GET", "POST"]),
        Route(CALLBACK_PATH, pages.wrap(pages.sign_in_by_provider), methods=["GET"]),
        Route("/review/sign-out", pages.wrap(pages.sign_out), methods=["POST"]),
        Route("/review/queue/{application}", pages.wrap(pages.serve_queue), methods=["GET", "POST"]),
        Route("/review/queue/{application}/{row_id}", pages.wrap(pages.serve_item), methods=["GET", "POST"]),
        Route("/review/decisions/{application}", pages.wrap(pages.serve_decisions), methods=["GET", "POST"]),
        Route("/review/{application}/trace", pages.wrap(pages.serve_trace), methods=["GET"]),
        *build_exclusion_routes(access, {each.name: each for each in reviewed}, clock),
    ]


@dataclass(frozen=True)
class View:
    """The part of a queue on a page; it travels in the address."""

    reason: str | None = None
    order: Order = Order.SEVEREST
    page: int = 1

    @classmethod
    def read(cls, request: Request) -> "View":
        """Read the view from the address; wrong values are left at their defaults."""
        given = request.query_params
        reason, page = given.get("reason", ""), given.get("page", "")
        return cls(
            reason=reason if reason in REASONS else None,
            order=Order.OLDEST if given.get("order") == Order.OLDEST else Order.SEVEREST,
            page=int(page) if page.isdecimal() and 0 < len(page) < 7 and int(page) > 0 else 1,
        )

    def query(self, **changes: Any) -> str:
        """Write the address's query for this view with changes, `?` included."""
        values = {"reason": self.reason, "order": self.order.value, "page": self.page} | changes
        defaults = {"reason": None, "order": Order.SEVEREST.value, "page": 1}
        chosen = {name: value for name, value in values.items() if value != defaults[name]}
        return f"?{urlencode(chosen)}" if chosen else ""


class _Pages:
    """The handlers; one instance per service, used from its event loop."""

    def __init__(
        self, event_log: EventLog, sessions: Sessions, queues: Mapping[str, ReviewQueue], clock: Clock
    ) -> None:
        self._event_log = event_log
        self._sessions = sessions
        self._queues = queues
        self._clock = clock
        self._reader = BodyReader(_FORM_BYTES)
        self._budget = MemoryBudget(_FORMS_AT_ONCE_BYTES)
        # One decision at a time: two reviewers who press the same key within a second decide once.
        self._deciding = asyncio.Lock()

    def wrap(self, handler: Handler) -> Handler:
        """Wrap `handler`: its refusals become pages, and every answer gets its headers."""

        async def answer(request: Request) -> Response:
            try:
                self._sessions.check_host(request)
                if request.method == "POST":
                    check_sent_from_here(request)
                response = await handler(request)
            except PageRefusal as refusal:
                response = _render_page("message", refusal.status, message=refusal.message)
            except RefusedError as refusal:
                response = _render_page("message", refusal.build_response().status_code, message=refusal.error)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer

    async def serve_asset(self, request: Request) -> Response:
        """Serve the style sheet and the script."""
        return answer_asset(request, "flywheel_assets.review", _ASSETS)

    async def sign_in(self, request: Request) -> Response:
        """Show the form, and take its answer."""
        if request.method == "GET":
            to = _choose_target(request.query_params.get("to", ""))
            named = self._sessions.sign_in_by_proxy(request)
            if named is None:
                return self._ask_who(to=to)
            return _open_session(request, named, to)
        form = await self._read_form(request)
        to = _choose_target(form.get("to", ""))
        try:
            session = self._sessions.sign_in(form.get("name", ""), form.get("key", "").strip())
        except PageRefusal as refusal:
            return self._ask_who(refusal.status, complaint=refusal.message, to=to)
        return _open_session(request, session, to)

    def _ask_who(self, status: int = 200, **values: Any) -> Response:
        elsewhere = CALLBACK_PATH if self._sessions.provider is not None else None
        return _render_page("sign_in", status, needs_key=self._sessions.needs_key, elsewhere=elsewhere, **values)

    async def sign_in_by_provider(self, request: Request) -> Response:
        """Send a person to the provider, and let in the one whom it sends back."""
        provider = self._sessions.provider
        if provider is None:
            raise PageRefusal(404, "No provider signs reviewers in here.")
        if not request.query_params:
            address, state = await provider.begin(request)
            response = RedirectResponse(address, status_code=303)
            # Lax: a strict cookie would not come back from the provider's page.
            response.set_cookie(
                STATE_COOKIE,
                state,
                path=CALLBACK_PATH,
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
                max_age=600,
            )
            return response
        session = await self._sessions.sign_in_by_provider(request)
        # A page, no redirect: the strict cookie is sent only once a page of ours asks for the next one.
        welcome = _render_page("welcome", name=session.name)
        welcome.delete_cookie(STATE_COOKIE, path=CALLBACK_PATH)
        return _set_session(request, session, welcome)

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        session = self._sessions.find(request)
        if session is not None:
            check_form_token(session, (await self._read_form(request)).get("token", ""))
            self._sessions.sign_out(session)
        return _redirect("/review/sign-in")

    async def serve_home(self, request: Request) -> Response:
        """Show the number of waiting rows per application."""
        session = self._sessions.find(request)
        if session is None:
            return _redirect("/review/sign-in")
        names = self._sessions.list_applications(session)
        if len(names) == 1:
            return _redirect(f"/review/queue/{names[0]}")
        waiting = {name: len(await self._list_waiting(self._queues[name])) for name in names}
        return _render_page("home", session=session, waiting=waiting)

    async def serve_queue(self, request: Request) -> Response:
        """Show the list, and take decisions about several of its rows."""
        session, queue = self._open(request)
        view = View.read(request)
        if request.method == "POST":
            form = await self._read_form(request)
            check_form_token(session, form.get("token", ""))
            chosen = form.get("row", "").split()
            session.notice = await self._decide_batch(session, queue, chosen, form.get("do", ""), view)
            return _redirect(f"/review/queue/{queue.reviewed.name}{view.query()}")
        everything = await self._list_waiting(queue)
        items = self._sort(session, await self._list_waiting(queue, view))
        first = (view.page - 1) * ITEMS_ON_A_PAGE
        listed = items[first : first + ITEMS_ON_A_PAGE]
        changes = await asyncio.to_thread(_read_changes, queue, listed)
        by_reason = {reason: sum(item.reason == reason for item in everything) for reason in REASONS}
        by_reason[SAMPLED] = len(await self._list_waiting(queue, View(reason=SAMPLED)))
        return _render_page(
            "queue",
            session=session,
            notice=session.take_notice(),
            application=queue.reviewed.name,
            applications=self._sessions.list_applications(session),
            is_text=queue.reviewed.contract is None,
            items=listed,
            changes=changes,
            first=first + 1,
            total=len(items),
            everything=len(everything),
            most=MOST_ITEMS,
            last_page=max(1, -(-len(items) // ITEMS_ON_A_PAGE)),
            by_reason={reason: count for reason, count in by_reason.items() if count},
            reasons=REASONS,
            view=view,
            today=self._clock().date(),
        )

    async def serve_item(self, request: Request) -> Response:
        """Show one item, and take the decision about it."""
        session, queue = self._open(request)
        view = View.read(request)
        items = self._sort(session, await self._list_waiting(queue, view))
        row_id: str = request.path_params["row_id"]
        place = next((number for number, item in enumerate(items) if item.row_id == row_id), None)
        name = queue.reviewed.name
        if place is None:
            session.notice = "That row was decided meanwhile, or its day was curated again."
            return _redirect(f"/review/queue/{name}{view.query()}")
        following = items[place + 1].row_id if place + 1 < len(items) else None
        if request.method == "POST":
            form = await self._read_form(request)
            check_form_token(session, form.get("token", ""))
            if form.get("do") == "skip":
                session.skip(row_id)
            else:
                session.notice = await self._decide(session, queue, items[place], form)
            to = f"/{following}" if following else ""
            return _redirect(f"/review/queue/{name}{to}{view.query()}")
        row = await asyncio.to_thread(queue.read_row, items[place])
        if row is None:
            raise PageRefusal(410, "The row is gone: its day was joined again. The queue follows within seconds.")
        shown = _cut_texts(items[place], row) if queue.reviewed.contract is None else None
        labels = [] if shown else await asyncio.to_thread(queue.read_labels, items[place].prediction_id)
        return _render_page(
            "text_item" if shown else "score_item",
            session=session,
            notice=session.take_notice(),
            application=name,
            item=items[place],
            reasons=REASONS,
            row=row,
            shown=shown,
            features=None if shown else msgspec.json.decode(row["features"], type=dict[str, Any]),
            scores=msgspec.json.decode(row["scores"], type=dict[str, float]) if row.get("scores") else None,
            labels=labels,
            contract=queue.reviewed.contract,
            place=place + 1,
            total=len(items),
            previous=items[place - 1].row_id if place else None,
            following=following,
            view=view,
            today=self._clock().date(),
            longest_answer=LONGEST_TEXT_CHARACTERS,
        )

    async def serve_decisions(self, request: Request) -> Response:
        """Show all decisions with their reviewers and times, and take one back."""
        session, queue = self._open(request)
        if request.method == "POST":
            form = await self._read_form(request)
            check_form_token(session, form.get("token", ""))
            session.notice = await self._undo(session, queue, form.get("undo", ""))
            return _redirect(f"/review/decisions/{queue.reviewed.name}")
        undoable = await asyncio.to_thread(queue.find_undoable)
        decided = await asyncio.to_thread(queue.list_decided)
        return _render_page(
            "decisions",
            session=session,
            application=queue.reviewed.name,
            decisions=decided[:MOST_DECISIONS_SHOWN],
            total=len(decided),
            reasons=REASONS,
            undoable=undoable,
            notice=session.take_notice(),
        )

    async def serve_trace(self, request: Request) -> Response:
        """Show what became of the event whose id is in the address, without its texts."""
        session, queue = self._open(request)
        traced = queue.reviewed.traced
        if traced is None:
            raise PageRefusal(404, "This service traces nothing: `flywheel trace` does.")
        wanted, source = (request.query_params.get(name, "").strip() for name in ("id", "source"))
        if max(len(wanted), len(source)) > LONGEST_ID:
            raise PageRefusal(400, f"An id has at most {LONGEST_ID} characters.")
        found = await asyncio.to_thread(trace_event, traced, wanted, source or None) if wanted else None
        return _render_page(
            "trace",
            session=session,
            application=queue.reviewed.name,
            wanted=wanted,
            source=source,
            found=found,
            longest=LONGEST_ID,
        )

    def _open(self, request: Request) -> tuple[Session, ReviewQueue]:
        session = self._sessions.find(request)
        if session is None:
            raise PageRefusal(401, "You are not signed in, or not any more.")
        application: str = request.path_params["application"]
        if application not in self._sessions.list_applications(session):
            raise PageRefusal(404, "There is no such application here, or your key does not open it.")
        return session, self._queues[application]

    async def _list_waiting(self, queue: ReviewQueue, view: View | None = None) -> list[Item]:
        view = view or View()
        return await asyncio.to_thread(queue.list_waiting, self._clock().date(), view.reason, view.order)

    def _sort(self, session: Session, items: list[Item]) -> list[Item]:
        return sorted(items, key=lambda item: item.row_id in session.skipped)

    async def _read_form(self, request: Request) -> dict[str, str]:
        """Read the fields of a form; several of one name are joined by spaces."""
        with self._budget.open_share() as share:
            body = await self._reader.read(request, share)
        try:
            fields = parse_qs(
                body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
            )
        except ValueError:
            raise PageRefusal(400, "The form cannot be read.") from None
        return {name: " ".join(values) for name, values in fields.items()}

    async def _decide(self, session: Session, queue: ReviewQueue, item: Item, form: Mapping[str, str]) -> str:
        """Decide about one item; return the notice for the reviewer."""
        # A label's button says the label, and thereby what it does.
        verb = _parse_verb(form.get("do", Verb.LABEL if "label" in form else ""))
        # A browser sends line breaks as CR LF, whatever they were.
        text = form.get("text", "").replace("\r\n", "\n")
        if verb is Verb.WRITE and not text.strip():
            raise PageRefusal(400, "The right answer is empty. Write it, or reject the row.")
        if verb is Verb.WRITE and len(text) > LONGEST_TEXT_CHARACTERS:
            raise PageRefusal(400, f"The answer has {len(text)} characters; valid: at most {LONGEST_TEXT_CHARACTERS}.")
        written = form.get("label") if verb is Verb.LABEL else text
        async with self._deciding:
            if not await self._is_waiting(queue, item):
                return "Another reviewer was faster: that row is decided."
            decision = await self._record(session, queue, item, verb, written)
        if item.reason == SAMPLED and decision.verb is Verb.REJECT:
            return (
                "Counted as wrong. It stays in gold until the right answer is written here, or by "
                f"flywheel exclude --prediction {item.prediction_id} -a {queue.reviewed.name} --reason wrong --yes"
            )
        return f"{_DONE[decision.verb]}: {REASONS[item.reason]}."

    async def _decide_batch(self, session: Session, queue: ReviewQueue, chosen: list[str], do: str, view: View) -> str:
        verb = _parse_verb(do)
        if verb is Verb.WRITE or verb is Verb.LABEL:
            raise PageRefusal(400, "An answer is written for one row at a time.")
        decided = left = 0
        async with self._deciding:
            items = {item.row_id: item for item in await self._list_waiting(queue, view)}
            for row_id in dict.fromkeys(chosen):
                item = items.get(row_id)
                if item is None or not self._can_be_batched(verb, item):
                    left += 1
                    continue
                await self._record(session, queue, item, verb, None)
                decided += 1
        if not chosen:
            return "No row was chosen."
        rest = f" {left} left: decided meanwhile, or of a kind that cannot be decided so." if left else ""
        return f"{_DONE[verb]}: {decided} {'row' if decided == 1 else 'rows'}.{rest}"

    def _can_be_batched(self, verb: Verb, item: Item) -> bool:
        is_complaint = item.reason == THUMBS_DOWN
        if verb is Verb.CONFIRM:
            return item.confirm_until is not None and self._clock().date() <= item.confirm_until
        return not (verb is Verb.ACCEPT and is_complaint)

    async def _is_waiting(self, queue: ReviewQueue, item: Item) -> bool:
        waiting = await self._list_waiting(queue, View(reason=item.reason))
        return any(each.row_id == item.row_id for each in waiting)

    async def _undo(self, session: Session, queue: ReviewQueue, event_id: str) -> str:
        """Take a decision back: its row waits again, and both decisions stay in the audit."""
        async with self._deciding:
            undoable = await asyncio.to_thread(queue.find_undoable)
            if event_id not in undoable:
                return "That decision does not stand any more."
            undone = undoable[event_id]
            decision = Decision(
                verb=Verb.UNDO,
                row_id=undone.row_id,
                prediction_id=undone.prediction_id,
                reason=undone.reason,
                by=session.name,
                at=self._clock(),
                key_id=session.key_id,
                undoes=event_id,
                earlier_undone=undone.earlier_undone,
            )
            event = build_undo(queue.reviewed.name, decision, undone, is_text=queue.reviewed.contract is None)
            await self._append(queue, event, decision)
        return f"Undone: {undone.verb}, {REASONS.get(undone.reason, undone.reason)}. The row waits again."

    async def _append(self, queue: ReviewQueue, event: LandedRow, decision: Decision) -> None:
        """Make a decision's event durable, then note the decision in the index."""
        try:
            await self._event_log.append(queue.reviewed.name, [event])
        except EventLogError as error:
            raise PageRefusal(503, f"Nothing was decided: {error}. Try again in a moment.") from None
        await asyncio.to_thread(queue.index.record, [decision])

    async def _record(
        self, session: Session, queue: ReviewQueue, item: Item, verb: Verb, written: str | None
    ) -> Decision:
        """Make the decision durable, then note it in the index."""
        row = await asyncio.to_thread(queue.read_row, item)
        if row is None:
            raise PageRefusal(410, "The row is gone: its day was joined again. The queue follows within seconds.")
        verb, answer = _choose_answer(queue.reviewed, item, row, verb, written, self._clock().date())
        decision = Decision(
            verb=verb,
            row_id=item.row_id,
            prediction_id=item.prediction_id,
            reason=item.reason,
            by=session.name,
            at=self._clock(),
            key_id=session.key_id,
            earlier_undone=await asyncio.to_thread(queue.count_undone, item.row_id),
        )
        event_id = identify_decision(queue.reviewed.name, decision, answer)
        decision = msgspec.structs.replace(decision, event_id=event_id)
        await self._append(queue, build_event(queue.reviewed.name, decision, row, answer), decision)
        return decision


_DONE = {
    Verb.ACCEPT: "Accepted",
    Verb.REJECT: "Rejected",
    Verb.WRITE: "Answered",
    Verb.LABEL: "Labelled",
    Verb.CONFIRM: "Confirmed",
}


def _parse_verb(do: str) -> Verb:
    if do not in _DONE:
        raise PageRefusal(400, f"There is no such decision; valid: {', '.join(_DONE)}.")
    return Verb(do)


def _choose_answer(
    reviewed: Reviewed, item: Item, row: Mapping[str, Any], verb: Verb, written: str | None, today: date
) -> tuple[Verb, str | None]:
    """Choose the text or label that a decision sends.

    To accept a label is to say it, to accept an edit to send its text.
    """
    if verb is Verb.REJECT or (item.reason == SAMPLED and verb is Verb.ACCEPT):
        return verb, None
    if reviewed.contract is not None:
        label = row["label"] if verb is Verb.ACCEPT else written
        valid = reviewed.contract.label_words
        if verb is Verb.WRITE or label not in valid:
            raise PageRefusal(400, f"A label is one of {' and '.join(valid)}.")
        return Verb.LABEL, label
    if verb is Verb.LABEL:
        raise PageRefusal(400, "This application's predictions are texts; they have no label.")
    if verb is Verb.CONFIRM:
        if item.confirm_until is None:
            raise PageRefusal(400, "Only a thumbs down is confirmed. Accept or reject the row.")
        if today > item.confirm_until:
            raise PageRefusal(400, f"A confirmation met its prediction until {item.confirm_until}; write the answer.")
        return verb, None
    if verb is Verb.ACCEPT and item.reason == THUMBS_DOWN:
        raise PageRefusal(
            400, "A thumbs down has no text to accept. Confirm it, write the right answer, or reject the row."
        )
    if verb is Verb.ACCEPT:
        return verb, row["final_text"] if is_correction(row) else None
    return verb, written


@dataclass(frozen=True)
class _ShownChange:
    """Holds the two lines of a row of the queue, so that rows are not decided blindly."""

    model: list[Piece]
    person: list[Piece] | None
    """None: there is no other text."""


def _read_changes(queue: ReviewQueue, items: Sequence[Item]) -> dict[str, _ShownChange]:
    """Read and cut what the items of one page say, by row id."""
    rows = queue.read_changes(items)
    cut = _excerpt_texts if queue.reviewed.contract is None else _excerpt_label
    return {item.row_id: cut(item, rows[item.row_id]) for item in items if item.row_id in rows}


def _excerpt_texts(item: Item, row: Mapping[str, Any]) -> _ShownChange:
    model, person, marks, _ = _mark_texts(item, row)
    return _ShownChange(
        cut_excerpt(model, marks["model"], LONGEST_EXCERPT),
        None if person is None else cut_excerpt(person, marks["person"], LONGEST_EXCERPT),
    )


def _excerpt_label(_: Item, row: Mapping[str, Any]) -> _ShownChange:
    return _ShownChange(
        [Piece(f"score {row['score']:.3f}")],
        [Piece(f"{row['label']}, by {row['labeling_source'] or 'unknown'}")],
    )


@dataclass(frozen=True)
class _ShownTexts:
    """The texts of one item, cut into pieces for the template."""

    prompt: list[Piece]
    model: list[Piece]
    person: list[Piece] | None
    """None: there is no other text."""
    answer: str
    """The first content of the field for the right answer."""
    is_compared: bool
    hidden_characters: int
    """Of texts too long to show."""


def _mark_texts(item: Item, row: Mapping[str, Any]) -> tuple[str, str | None, dict[str, list[Mark]], bool]:
    """Mark changes and findings; return both texts, the marks by text, and whether the texts were compared."""
    model: str = row["output"]
    person: str | None = row["final_text"] if row["final_text"] not in (None, model) else None
    diff = None if person is None else compare_words(model, person)
    changed_model, changed_person = diff or ([], [])
    # An accepted output is `chosen` to the policy, although it is the model's own.
    fields = {"prompt": "prompt", "rejected": "model", "chosen": "model" if person is None else "person"}
    found: dict[str, list[Mark]] = {"prompt": [], "model": changed_model, "person": changed_person}
    for finding in item.evidence:
        place = fields.get(finding.get("field") or "")
        if place is not None and finding.get("start") is not None:
            found[place].append(
                Mark(finding["start"], finding["end"], "evidence", f"{finding['check']} ({finding['category']})")
            )
    return model, person, found, diff is not None


def _cut_texts(item: Item, row: Mapping[str, Any]) -> _ShownTexts:
    model, person, found, is_compared = _mark_texts(item, row)
    texts = [row["readable_prompt"], model, person or ""]
    return _ShownTexts(
        prompt=cut_pieces(row["readable_prompt"], found["prompt"], LONGEST_SHOWN),
        model=cut_pieces(model, found["model"], LONGEST_SHOWN),
        person=None if person is None else cut_pieces(person, found["person"], LONGEST_SHOWN),
        answer=remove_unseen(person if person is not None else model),
        is_compared=is_compared,
        hidden_characters=sum(max(0, len(text) - LONGEST_SHOWN) for text in texts),
    )


def _choose_target(given: str) -> str:
    """Choose the page after signing in: a page of the wheel, or the queue.

    An address that leads elsewhere is never followed.
    """
    return given if _WHEEL_PAGE.fullmatch(given) else "/review"


def _open_session(request: Request, session: Session, to: str) -> Response:
    return _set_session(request, session, _redirect(to))


def _set_session(request: Request, session: Session, response: Response) -> Response:
    response.set_cookie(
        COOKIE,
        session.cookie,
        # The page of the wheel is at "/", for the same people.
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _redirect(path: str) -> Response:
    return RedirectResponse(path, status_code=303)


@cache
def _load_templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("flywheel_assets.review", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render_page(template: str, status: int = 200, **values: Any) -> Response:
    content = _load_templates().get_template(f"{template}.html").render(values)
    # Surrogates cannot be in a landed text; any other character without UTF-8 is shown as a question mark.
    return Response(content.encode("utf-8", "replace"), status, media_type="text/html; charset=utf-8")
