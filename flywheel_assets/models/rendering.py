"""Encodes conversations as a base model's chat template renders them; training, evaluation and the cut share it.

Needs a tokenizer, never a model: it imports no torch.

With a chat template the *whole* conversation is rendered, prompt and answer, as transformers renders it. The prompt is
the rendering that serving sends (`add_generation_prompt`), the completion is what the template writes after it, up to
and with the token that ends the turn.

A template may write earlier turns otherwise once there is an answer: Mistral's moves the system text, others add one of
their own. The model still sees serving's prompt, so that one is kept, and the completion is what follows the end of
the last message, if that begins as serving's prompt ends. Otherwise the row is refused (a prompt that ends in an open
block of reasoning): there is no completion that both the template and serving mean.

A token across the boundary, for instance where the prompt ends in a line break and the answer begins with one, is
split there: serving never sees it, so prompt and completion are then encoded apart, to the same text.

A template that writes today's date (Llama 3.2, gpt-oss) writes the day of the row: serving did so when it answered, and
what is trained on does not depend on the day of the training.

Without a chat template prompt and completion are encoded apart and the end token is added. Messages are then written as
plain turns, `role: content` with an empty line between them, and `assistant:` with a line break before the answer.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import msgspec

from flywheel_assets.conversations import (
    Message,
    Role,
    decode_answer,
    decode_messages,
    read_answer_text,
    split_reasoning,
)
from flywheel_assets.errors import SettingsError, TrainingError
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.records import ExampleKind, PromptFormat, Reason

_LONGEST_SENTENCE = 200
_PROBES = ("flywheelprobeone", "flywheelprobetwo")
_DATE_DIRECTIVES = ("%Y", "%y", "%m", "%B", "%b", "%d", "%j", "%A", "%a", "%H", "%M", "%S")
# Takes the place of the function by which templates ask for today's date; transformers lets no other function in.
_DATE_OF_THE_ROW = (
    "{%- macro strftime_now(format) -%}{%- set found = namespace(text=format) -%}"
    "{%- for directive, written in row_date.items() -%}{%- set found.text = found.text|replace(directive, written) -%}"
    "{%- endfor -%}{{- found.text -}}{%- endmacro %}"
)


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """Holds what decides how a row is encoded, besides the tokenizer."""

    wrap_text_prompts: bool = True
    """Send a prompt that is text as one user turn where the base has a chat template."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the chat template, for instance {"enable_thinking": False}; JSON values."""
    max_length: int | None = None
    """Most tokens of prompt and completion; None: any number."""


@dataclass(frozen=True)
class EncodedRow:
    """Holds the token ids of one row; completions end with the token that ends the turn."""

    prompt: list[int]
    chosen: list[int]
    """Empty in an objection: no text is right."""
    rejected: list[int] | None


@dataclass(frozen=True)
class Refusal:
    """Says why a row cannot be encoded: a reason code, and a sentence without the row's text."""

    reason: Reason
    sentence: str


class _RefusedError(Exception):
    """Carries a refusal out of the rendering of one row."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.refusal = Refusal(reason, sentence)


@dataclass(frozen=True)
class _Rendered:
    """Holds one row as texts."""

    prompt: str
    completions: list[str]
    """Of the chosen and the rejected text, without the end token where no template wrote it."""
    is_chat: bool
    is_objection: bool = False
    """Its only completion is the rejected one."""


class RowEncoder:
    """Encodes rows for one tokenizer."""

    def __init__(self, tokenizer: Any, rendering: Rendering) -> None:
        self.tokenizer = tokenizer
        self._rendering = rendering
        template = tokenizer.chat_template
        self.has_template = bool(template)
        self._templates = "\n".join(template.values()) if isinstance(template, dict) else template or ""
        self._asks_for_the_date = "strftime_now" in self._templates
        added = tokenizer.added_tokens_decoder
        self._special = {number for number, token in added.items() if token.special}
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        # No token reaches across such a token: a text may be encoded from there on alone.
        self._borders = {
            number: token.content
            for number, token in added.items()
            if token.special and not token.normalized and not token.single_word and self._backend is not None
        }
        # A token that is added and not special, such as <think>, controls the model where its template writes it.
        controls = sorted(
            {token.content for token in added.values() if token.special or token.content in self._templates} - {""},
            key=lambda text: (-len(text), text),
        )
        controls = [text for text in controls if not text.isspace()]
        self._controls = re.compile("|".join(map(re.escape, controls))) if controls else None
        normalizer = getattr(self._backend, "normalizer", None)
        # Such a tokenizer finds its control tokens in the normalized text as well.
        self._normalizer = normalizer if any(token.normalized for token in added.values()) else None
        self._takes_text, self._takes_parts = self._find_content_forms() if self.has_template else (True, False)
        self._blank: dict[int, bool] = {}

    def encode(self, rows: Sequence[ExportedRow]) -> list[EncodedRow | Refusal]:
        """Encode rows in their order; a row that cannot be encoded whole becomes its refusal."""
        rendered: list[_Rendered | Refusal] = []
        for row in rows:
            try:
                rendered.append(self._render(row))
            except _RefusedError as error:
                rendered.append(error.refusal)
        kept = [each for each in rendered if isinstance(each, _Rendered)]
        prompts = self._encode_distinct((each.prompt, not each.is_chat) for each in kept)
        borders = {
            each.prompt: self._find_border(each.prompt, prompts[each.prompt, False]) for each in kept if each.is_chat
        }
        tails = self._encode_distinct(
            (self._cut_tail(each, completion, borders), False) for each in kept for completion in each.completions
        )
        return [
            each if isinstance(each, Refusal) else self._assemble(each, prompts, borders, tails) for each in rendered
        ]

    def encode_prompt(self, prompt: str, prompt_format: str = PromptFormat.TEXT, tools: str | None = None) -> list[int]:
        """Encode a prompt alone, as serving sends it.

        Raises:
            TrainingError: the template refuses it.
        """
        try:
            text, is_chat = self._render_prompt(self._read_prompt(prompt, prompt_format), _read_tools(tools))
        except _RefusedError as error:
            raise TrainingError(f"the prompt cannot be encoded: {error.refusal.sentence}") from None
        return self._complete_prompt(self._encode_text(text, add_special_tokens=not is_chat))

    def decode(self, ids: list[int]) -> str:
        """Decode tokens, without the special ones."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def find_opening(self, completion: Sequence[int], answer: str) -> list[int]:
        """Return what a completion holds before the answer, from the last control token on."""
        start = 0
        for place in range(len(completion)):
            text = self.decode(list(completion[place:]))
            if len(text) <= len(answer):
                # Shorter: one token reaches from what leads to the answer into it.
                start = place if text == answer else 0
                break
        while start < len(completion) - 1 and completion[start] in self._special:
            start += 1
        controls = (place for place in reversed(range(start)) if completion[place] in self._special)
        return list(completion[next(controls, start) : start])

    def read_answer(self, target: "Target", written: Sequence[int]) -> str:
        """Read the answer in the tokens that a model wrote, without what leads to it and without reasoning.

        Reasoning in a channel of its own ends where the channel of the answer opens.
        """
        length = len(target.opening)
        for start in reversed(range(len(written) - length + 1)) if length else ():
            if list(written[start : start + length]) == target.opening:
                return self.decode(list(written[start + length :]))
        text = self.decode(list(written))
        if target.lead and text.startswith(target.lead):
            return text.removeprefix(target.lead)
        return split_reasoning(text)[1]

    def _render(self, row: ExportedRow) -> _Rendered:
        prompt = self._read_prompt(row.prompt, row.prompt_format)
        tools = _read_tools(row.tools)
        day = date.fromisoformat(row.completed_date) if row.completed_date else None
        is_objection = row.example_kind == ExampleKind.OBJECTION
        answers = [] if is_objection else [_read_answer(row.chosen, row.chosen_message)]
        if row.rejected is not None:
            answers.append(_read_answer(row.rejected, row.rejected_message))
        if not isinstance(prompt, str) and prompt[-1].role is Role.ASSISTANT:
            sentence = "the prompt ends in an assistant message: the model would have to go on writing it"
            raise _RefusedError(Reason.UNFINISHED_TURN, sentence)
        self._refuse_controls("prompt", [prompt] if isinstance(prompt, str) else _list_texts(prompt, tools))
        self._refuse_controls("answer", _list_texts(answers, None))
        text, is_chat = self._render_prompt(prompt, tools, day)
        if not is_chat:
            return _Rendered(text, [read_answer_text(answer) for answer in answers], False, is_objection)
        assert not isinstance(prompt, str)
        asked = [self._to_template(each) for each in prompt]
        completions = [self._render_completion(asked, self._to_template(each), tools, day, text) for each in answers]
        return _Rendered(text, completions, True, is_objection)

    def _read_prompt(self, prompt: str, prompt_format: str) -> str | list[Message]:
        if prompt_format != PromptFormat.MESSAGES:
            wraps = self.has_template and self._rendering.wrap_text_prompts
            return [Message(Role.USER, prompt)] if wraps else prompt
        try:
            messages = decode_messages(prompt)
        except (msgspec.DecodeError, RecursionError):
            messages = []
        if not messages:
            sentence = f"the prompt is no list of messages with the roles {', '.join(Role)}"
            raise _RefusedError(Reason.TEMPLATE_REFUSED, sentence)
        return messages

    def _render_prompt(
        self, prompt: str | list[Message], tools: list[Any] | None, day: date | None = None
    ) -> tuple[str, bool]:
        """Render what serving sends on a day, None: today; also return whether the chat template wrote it."""
        if isinstance(prompt, str):
            return prompt, False
        if not self.has_template:
            return _write_plain_turns(prompt, tools), False
        messages = [self._to_template(each) for each in prompt]
        return self._apply_template(messages, tools, day, add_generation_prompt=True), True

    def _render_completion(
        self, asked: list[dict[str, Any]], answer: dict[str, Any], tools: list[Any] | None, day: date | None, start: str
    ) -> str:
        """Render what the template writes for the answer after `start`, the prompt that serving sends."""
        whole = self._apply_template([*asked, answer], tools, day, add_generation_prompt=False)
        if whole.startswith(start):
            return whole[len(start) :]
        # The earlier turns differ. A probe in the place of the last message shows what follows that message.
        probe = self._to_template(Message(Role.USER, _PROBES[0]))["content"]
        probed = [*asked[:-1], {**asked[-1], "content": probe}]
        with suppress(_RefusedError):
            ending = self._apply_template(probed, tools, day, add_generation_prompt=True).rpartition(_PROBES[0])
            written = self._apply_template([*probed, answer], tools, day, add_generation_prompt=False).rpartition(
                _PROBES[0]
            )
            is_found = ending[1] and written[1] and start.endswith(ending[2]) and whole.endswith(written[2])
            if is_found and written[2].startswith(ending[2]):
                return written[2][len(ending[2]) :]
        sentence = (
            "the template writes something else before the answer than the end of its prompt; if it writes reasoning "
            "into the prompt, turn that off with the recipe's chat_template_kwargs"
        )
        raise _RefusedError(Reason.TEMPLATE_MISMATCH, sentence)

    def _apply_template(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, day: date | None, *, add_generation_prompt: bool
    ) -> str:
        dated: dict[str, Any] = {}
        if day is not None and self._asks_for_the_date:
            template = self.tokenizer.get_chat_template(tools=tools)
            written = {directive: day.strftime(directive) for directive in _DATE_DIRECTIVES}
            dated = {"chat_template": _DATE_OF_THE_ROW + template, "row_date": written}
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                messages,
                tools=tools,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **dated,
                **self._rendering.chat_template_kwargs,
            )
        except Exception as error:  # A template is a program of its own: it may raise anything.
            raise _RefusedError(Reason.TEMPLATE_REFUSED, self._describe(error, messages)) from None
        return rendered

    def _describe(self, error: Exception, messages: list[dict[str, Any]]) -> str:
        """Describe a template's error in its own words, without the words of the conversation."""
        kind, said = type(error).__name__, " ".join(str(error).split())
        if not type(error).__module__.startswith("jinja2"):
            # Python's errors may quote a value.
            return f"the chat template raised {kind}"
        if said not in self._templates:
            written = (value for each in messages for name, value in each.items() if name != "role")
            for text in sorted(_list_strings(list(written)), key=len, reverse=True):
                said = said.replace(text, "…") if len(text) > 1 else said
        return f"the chat template refuses it: {said[:_LONGEST_SENTENCE]}"

    def _to_template(self, message: Message) -> dict[str, Any]:
        built: dict[str, Any] = msgspec.to_builtins(message)
        content = message.content
        if isinstance(content, list):
            if other := sorted({str(part.get("type")) for part in content} - {"text"}):
                sentence = (
                    f"a message has content of type {', '.join(other)[:_LONGEST_SENTENCE]}; only text is trained on"
                )
                raise _RefusedError(Reason.UNSUPPORTED_CONTENT, sentence)
            if not self._takes_parts:
                built["content"] = "\n".join(part["text"] for part in content)
        elif isinstance(content, str) and not self._takes_text:
            built["content"] = [{"type": "text", "text": content}]
        return built

    def _find_content_forms(self) -> tuple[bool, bool]:
        """Find out whether the template writes contents that are text, and contents that are lists of parts."""
        first, second = _PROBES
        parts = [{"type": "text", "text": first}, {"type": "text", "text": second}]
        as_text, as_parts = self._try(first), self._try(parts)
        # A template for texts that is given a list may write the list, with its brackets.
        takes_parts = first in as_parts and second in as_parts and not re.search(r"""['"]text['"]""", as_parts)
        return first in as_text or not takes_parts, takes_parts

    def _try(self, content: str | list[dict[str, str]]) -> str:
        try:
            return self._apply_template([{"role": "user", "content": content}], None, None, add_generation_prompt=True)
        except _RefusedError:
            return ""

    def _refuse_controls(self, where: str, texts: Sequence[str]) -> None:
        if self._controls is None:
            return
        for text in texts:
            found = self._controls.search(text)
            if found is None and self._normalizer is not None:
                found = self._controls.search(self._normalizer.normalize_str(text))
            if found:
                sentence = f"the {where} holds the control token {found[0]} as text"
                raise _RefusedError(Reason.CONTROL_TOKEN, sentence)

    def _encode_text(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return self._encode_texts([text], add_special_tokens=add_special_tokens)[0]

    def _encode_texts(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        if not texts:
            return []
        if self._backend is not None:
            # The same tokens as through the tokenizer's own call, which also counts where each token lies.
            self._backend.no_truncation()
            self._backend.no_padding()
            found = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
            return [each.ids for each in found]
        # Not verbose: a text longer than the model's own limit is counted here, not warned of.
        encoded: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False
        )["input_ids"]
        return encoded

    def _encode_distinct(self, wanted: Iterable[tuple[str, bool]]) -> dict[tuple[str, bool], list[int]]:
        """Encode every distinct text once, in two batches: with the tokenizer's own special tokens and without."""
        distinct = set(wanted)
        ids: dict[tuple[str, bool], list[int]] = {}
        for with_special in (False, True):
            texts = sorted(text for text, special in distinct if special is with_special)
            encoded = self._encode_texts(texts, add_special_tokens=with_special)
            ids.update(zip(((text, with_special) for text in texts), encoded, strict=True))
        return ids

    def _find_border(self, prompt: str, ids: Sequence[int]) -> tuple[int, int]:
        """Return the places in text and ids of a prompt's last token that no other reaches across.

        With an answer only the text from there on is encoded again, not the prompt.
        """
        for place in reversed(range(len(ids))):
            if ids[place] in self._borders:
                return prompt.rindex(self._borders[ids[place]]), place
        return 0, 0

    def _cut_tail(self, row: _Rendered, completion: str, borders: Mapping[str, tuple[int, int]]) -> str:
        return row.prompt[borders[row.prompt][0] :] + completion if row.is_chat else completion

    def _assemble(
        self,
        row: _Rendered,
        prompts: Mapping[tuple[str, bool], list[int]],
        borders: Mapping[str, tuple[int, int]],
        tails: Mapping[tuple[str, bool], list[int]],
    ) -> EncodedRow | Refusal:
        prompt = prompts[row.prompt, not row.is_chat]
        completions: list[list[int]] = []
        for text in row.completions:
            tail = tails[self._cut_tail(row, text, borders), False]
            if not row.is_chat:
                completions.append([*tail, self.tokenizer.eos_token_id])
                continue
            end = prompt[borders[row.prompt][1] :]
            if tail[: len(end)] == end:
                completion = tail[len(end) :]
            else:
                completion = self._encode_text(text, add_special_tokens=False)
                if self.tokenizer.decode(end + completion) != self.tokenizer.decode(tail):
                    sentence = "prompt and answer cannot be encoded apart: a token lies across their boundary"
                    return Refusal(Reason.TEMPLATE_MISMATCH, sentence)
            completions.append(self._end_turn(completion))
        prompt = self._complete_prompt(prompt)
        length, most = len(prompt) + max(map(len, completions)), self._rendering.max_length
        if most is not None and length > most:
            sentence = f"{len(prompt)} tokens of prompt and {length - len(prompt)} of answer; max_length is {most}"
            return Refusal(Reason.TOO_MANY_TOKENS, sentence)
        if row.is_objection:
            return EncodedRow(prompt, [], completions[0])
        return EncodedRow(prompt, completions[0], completions[1] if len(completions) > 1 else None)

    def _complete_prompt(self, prompt: list[int]) -> list[int]:
        # A model needs one token to start from, also for an empty prompt.
        tokenizer = self.tokenizer
        return prompt or [tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id]

    def _end_turn(self, completion: list[int]) -> list[int]:
        """Cut a completion after the first of the special tokens at its end, between which is white space only.

        Where the template writes none, the tokenizer's end token is added: a model that never learns it never stops.
        """
        end: int | None = None
        for place in reversed(range(len(completion))):
            if completion[place] in self._special:
                end = place
            elif not self._is_blank(completion[place]):
                break
        return [*completion, self.tokenizer.eos_token_id] if end is None else completion[: end + 1]

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = not self.tokenizer.decode([token]).strip()
        return self._blank[token]


@dataclass(frozen=True)
class Target:
    """Holds what a model is asked to write for one row, and how what it writes is read."""

    prompt: list[int]
    reference: str
    """The answer as text; special tokens are left out."""
    lead: str
    """What the template writes before the answer, as text: an empty block of reasoning."""
    opening: list[int]
    """Tokens that the template writes right before the answer, from the last control token on; empty: there is none.
    `<|message|>` for gpt-oss, which ends the header of its channel."""
    tokens: int
    """Of the whole completion."""
    turn_end: int
    """The token that ends the completion."""


def encode_rows(encoder: RowEncoder, rows: Sequence[ExportedRow]) -> list[EncodedRow]:
    """Encode rows of a version, all of them.

    Raises:
        TrainingError: a row cannot be encoded whole. A version that was cut for this recipe and base model has none.
    """
    encoded: list[EncodedRow] = []
    for row, each in zip(rows, encoder.encode(rows), strict=True):
        if isinstance(each, Refusal):
            raise TrainingError(
                f"row {row.pair_id} cannot be encoded ({each.reason.value}): {each.sentence}. The version was cut for "
                "another recipe or base model: cut a new one, which leaves such rows out."
            )
        encoded.append(each)
    return encoded


def prepare_targets(encoder: RowEncoder, rows: Sequence[ExportedRow], encoded: Sequence[EncodedRow]) -> list[Target]:
    """Prepare what a model is asked to write for rows: their chosen texts."""
    targets: list[Target] = []
    for row, each in zip(rows, encoded, strict=True):
        written = encoder.decode(each.chosen)
        # Of a tool call the template's form is compared, not the line of JSON that people are shown.
        is_text = written.endswith(row.chosen)
        lead, reference = (written[: len(written) - len(row.chosen)], row.chosen) if is_text else ("", written)
        opening = encoder.find_opening(each.chosen, row.chosen) if is_text else []
        targets.append(Target(each.prompt, reference, lead, opening, len(each.chosen), each.chosen[-1]))
    return targets


def load_tokenizer(base_model: str) -> Any:
    """Load the base model's tokenizer; where it has no padding token, the end token pads (padding is always masked).

    Raises:
        SettingsError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base_model)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"base model {base_model!r} has no tokenizer that can be loaded ({type(error).__name__}). Put the model "
            "into the models folder (FLYWHEEL_MODELS_DIR), or give the id of one on the hub as `base_model`."
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read_tools(tools: str | None) -> list[Any] | None:
    return None if tools is None else json.loads(tools)


def _read_answer(text: str, message: str | None) -> Message:
    try:
        return decode_answer(text, message)
    except (msgspec.DecodeError, RecursionError):
        raise _RefusedError(Reason.TEMPLATE_REFUSED, "the answer is no message of an assistant") from None


def _write_plain_turns(messages: Sequence[Message], tools: list[Any] | None) -> str:
    turns = [f"{message.role.value}: {read_answer_text(message)}" for message in messages]
    if tools:
        turns.insert(0, f"tools: {json.dumps(tools, ensure_ascii=False)}")
    return "\n\n".join([*turns, "assistant:\n"])


def _list_texts(messages: Sequence[Message], tools: list[Any] | None) -> list[str]:
    """List every string that people or models wrote; the marks around an assistant's reasoning are no text."""
    texts = list(_list_strings(tools or []))
    for message in messages:
        built = msgspec.to_builtins(message)
        content = built.pop("content", None)
        if message.role is Role.ASSISTANT and isinstance(content, str):
            reasoning, answer = split_reasoning(content)
            # Nothing but reasoning is returned with its marks.
            content = [reasoning, answer] if answer else content
        texts += _list_strings([built, content])
    return texts


def _list_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _list_strings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _list_strings(member)
