"""Lets an OpenAI-compatible server write the answers of an evaluation.

A conversation goes to /chat/completions as messages, with its tools and the recipe's `chat_template_kwargs`: the
server's own chat template renders it, as in production. A prompt that no template wraps goes to /completions as token
ids. The most likely answer is asked for at temperature 0; each sampled one has a seed of its own, the same for every
model.

An adapter without a name of its own is loaded by POST /load_lora_adapter under a name that is made of its weights'
digest and the evaluation's, and unloaded at the end. Before anything is asked every name must be in GET /models, below
the base model where the server says so; every answer must name the model that was asked.

A server that is away, busy (429) or broken (5xx), and an answer that was cut, are asked again; then the evaluation ends
with a transient error and later goes on from the answers that it has. Any other refusal is permanent.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec

from flywheel_assets.conversations import Message, decode_answer, decode_messages, read_answer_text, split_reasoning
from flywheel_assets.errors import ModelServerUnavailableError, SettingsError
from flywheel_assets.evaluation.answers import Answer
from flywheel_assets.evaluation.options import GenerationServer
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.models.endpoints.exchange import UnansweredError, exchange, open_client, read_completion
from flywheel_assets.models.rendering import Rendering, Target
from flywheel_assets.records import PromptFormat, make_stable_id

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_CHECK = "Check GenerationServer's url and names, and FLYWHEEL_MODEL_SERVER_KEY_FILE."
_ENDED, _CUT_OFF = {"stop", "tool_calls", "function_call"}, "length"

_Received = TypeVar("_Received")


@dataclass(frozen=True)
class Question:
    """One answer that is wanted: the most likely one, or a sampled one with its number."""

    row: ExportedRow
    target: Target
    sample: int | None = None


@dataclass(frozen=True)
class ServedModels:
    """A server with the models of one evaluation."""

    server: GenerationServer
    client: httpx.Client
    rendering: Rendering
    is_chat: bool
    """The base model has a chat template."""
    max_new_tokens: int
    sleep: Callable[[float], None] = time.sleep

    @contextmanager
    def load(
        self, adapters: Mapping[str, str], named: Mapping[str, str], owner: str
    ) -> Iterator[dict[str | None, str]]:
        """Yield the names at which the server serves the base (None) and adapters, by digest of their weights.

        Args:
            adapters: folders by digest.
            named: names of those that are served already, by digest.
            owner: digest of the evaluation.

        Raises:
            SettingsError: a model is not served, or an adapter is refused.
            ModelServerUnavailableError: the server does not answer.
        """
        served = self._list_served()
        names: dict[str | None, str] = {None: self.server.base_model}
        names.update(named)
        for name in names.values():
            _require_served(name, served, self.server)
        loaded = {
            digest: f"flywheel-{make_stable_id(digest, owner)[:16]}" for digest in adapters if digest not in named
        }
        try:
            for digest, name in loaded.items():
                if name not in served:
                    self._load_adapter(name, adapters[digest])
            served = self._list_served()
            for name in (*named.values(), *loaded.values()):
                _require_served(name, served, self.server)
                if served[name] not in (None, self.server.base_model):
                    raise SettingsError(
                        f"{self.server.url} serves {name!r} as an adapter of {served[name]!r}, not of "
                        f"{self.server.base_model!r}: correct GenerationServer.base_model or model_names."
                    )
            names.update(loaded)
            yield names
        finally:
            for name in loaded.values():
                # The result is not worse for an adapter that stays loaded.
                with suppress(UnansweredError):
                    self._send("POST", "unload_lora_adapter", {"lora_name": name})

    def write(
        self, model: str, questions: Mapping[str, Question], temperature: float | None
    ) -> Iterator[dict[str, Answer]]:
        """Yield answers by the key of their question, as they come.

        Args:
            model: name at the server.
            questions: by key.
            temperature: None: the most likely answers.
        """
        with ThreadPoolExecutor(self.server.concurrent_requests) as threads:
            waiting = {threads.submit(self._ask, model, each, temperature): key for key, each in questions.items()}
            try:
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    failed = [each for each in done if each.exception() is not None]
                    # First what came: the next run goes on from it.
                    yield {waiting.pop(each): each.result() for each in done.difference(failed)}
                    for each in failed:
                        each.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _ask(self, model: str, question: Question, temperature: float | None) -> Answer:
        messages = self._build_messages(question.row)
        path = "completions" if messages is None else "chat/completions"
        body = {
            "model": model,
            "max_tokens": self.max_new_tokens,
            "temperature": 0.0 if temperature is None else temperature,
            "top_p": 1.0,
            "seed": int(make_stable_id("seed", question.row.pair_id, question.sample)[:7], 16),
            "stream": False,
            **({"prompt": question.target.prompt} if messages is None else self._describe_chat(messages, question.row)),
        }
        return self._repeat(path, lambda: _read_answer(self._send("POST", path, body), model))

    def _describe_chat(self, messages: Sequence[dict[str, Any]], row: ExportedRow) -> dict[str, Any]:
        tools = {} if row.tools is None else {"tools": json.loads(row.tools)}
        variables = dict(self.rendering.chat_template_kwargs)
        return {"messages": messages, **tools, **({"chat_template_kwargs": variables} if variables else {})}

    def _build_messages(self, row: ExportedRow) -> list[dict[str, Any]] | None:
        """Build the messages of a row's prompt; None: it is a text that no template wraps."""
        if not self.is_chat:
            return None
        if row.prompt_format == PromptFormat.MESSAGES:
            return [_to_protocol(message) for message in decode_messages(row.prompt)]
        return [{"role": "user", "content": row.prompt}] if self.rendering.wrap_text_prompts else None

    def _list_served(self) -> dict[str, str | None]:
        """List the served names, each with the base model that it adapts where the server says so."""

        def read() -> dict[str, str | None]:
            try:
                return {
                    each["id"]: each.get("parent") for each in json.loads(self._send("GET", "models", None))["data"]
                }
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UnansweredError("the answer is no list of models", may_pass=True) from None

        return self._repeat("models", read)

    def _load_adapter(self, name: str, folder: str) -> None:
        body = {"lora_name": name, "lora_path": folder}
        remedy = (
            "Start vLLM with --enable-lora, VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and a --max-lora-rank of the "
            f"recipe's lora_rank at least, and let it see {folder}; or name served adapters in "
            "GenerationServer.model_names."
        )
        self._repeat("load_lora_adapter", lambda: self._send("POST", "load_lora_adapter", body), remedy)

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        return exchange(self.client, method, self._locate(path), body, self.server.timeout_s)

    def _repeat(self, path: str, send: Callable[[], _Received], remedy: str = _CHECK) -> _Received:
        """Send until there is an answer, at most `attempts` times.

        Raises:
            SettingsError: the server refuses for good; the message ends with the remedy.
            ModelServerUnavailableError: no attempt had an answer.
        """
        for attempt in range(1, self.server.attempts):
            try:
                return send()
            except UnansweredError as error:
                if not error.may_pass:
                    raise self._refuse(path, error, remedy) from None
                doubling = _FIRST_PAUSE_S * 2.0 ** (attempt - 1)
                pause = doubling if error.retry_after_s is None else error.retry_after_s
            self.sleep(min(pause, _LONGEST_PAUSE_S))
        try:
            return send()
        except UnansweredError as error:
            if not error.may_pass:
                raise self._refuse(path, error, remedy) from None
            raise ModelServerUnavailableError(
                f"{self._locate(path)}: {error}, after {self.server.attempts} attempts. Answers that were written are "
                "kept; run again when it answers."
            ) from None

    def _refuse(self, path: str, error: UnansweredError, remedy: str) -> SettingsError:
        return SettingsError(f"{self._locate(path)}: {error}. {remedy}")

    def _locate(self, path: str) -> str:
        return f"{self.server.url.rstrip('/')}/{path}"


@contextmanager
def open_server(
    server: GenerationServer,
    key_file: str | None,
    *,
    rendering: Rendering,
    is_chat: bool,
    max_new_tokens: int,
) -> Iterator[ServedModels]:
    """Open the connections to a server.

    Args:
        server: of the application's options.
        key_file: file that holds the bearer token; None: there is none.
        rendering: of the recipe.
        is_chat: the base model has a chat template.
        max_new_tokens: after so many an answer is cut off.

    Raises:
        SettingsError: the key file cannot be read.
    """
    try:
        key = None if key_file is None else Path(key_file).read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"FLYWHEEL_MODEL_SERVER_KEY_FILE is {key_file}, which cannot be read ({error.strerror}). Correct it."
        ) from None
    with open_client(key, server.timeout_s) as client:
        yield ServedModels(server, client, rendering, is_chat, max_new_tokens)


def _require_served(name: str, served: Mapping[str, str | None], server: GenerationServer) -> None:
    if name not in served:
        raise SettingsError(
            f"{server.url} serves no model {name!r}; it serves {', '.join(sorted(served)) or 'none'}. Correct "
            "GenerationServer.base_model or model_names, or start the server with that model."
        )


def _to_protocol(message: Message) -> dict[str, Any]:
    """Return a message as the protocol writes it: a call's arguments are a text of JSON."""
    built: dict[str, Any] = msgspec.to_builtins(message)
    for call in built.get("tool_calls") or ():
        arguments = call["function"].get("arguments", {})
        if not isinstance(arguments, str):
            call["function"]["arguments"] = json.dumps(arguments, ensure_ascii=False)
    return built


def _read_answer(content: bytes, model: str) -> Answer:
    """Read an answer as people see it; reasoning is left out."""
    completion = read_completion(content)
    if completion.model not in (None, model):
        raise UnansweredError(f"{model!r} was asked, and {completion.model!r} answered", may_pass=False)
    reason = completion.choice.get("finish_reason")
    if reason not in _ENDED and reason != _CUT_OFF:
        raise UnansweredError(f"the answer was given up (finish_reason {reason!r})", may_pass=True)
    message = completion.choice.get("message")
    if message is None:
        text = completion.choice.get("text")
        if not isinstance(text, str):
            raise UnansweredError("the answer is no chat completion", may_pass=True)
    else:
        known = {name: message[name] for name in ("content", "tool_calls") if message.get(name)}
        try:
            text = read_answer_text(decode_answer("", json.dumps({"role": "assistant", "content": "", **known})))
        except msgspec.DecodeError:
            raise UnansweredError("the answer is no chat completion", may_pass=True) from None
    return Answer(split_reasoning(text)[1], reason in _ENDED)
