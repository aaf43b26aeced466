"""Eleven architectures with their published templates: what is trained on is what the template writes, token by token.

transformers' own rendering of the whole conversation is the measure: its prompt is what a serving engine sends, and
what follows it is what the engine's model has to write, up to and with the token at which it stops.
"""

import json
import re
from datetime import date
from typing import Any

import msgspec
import pytest

from flywheel_assets.conversations import decode_answer, decode_messages
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.models.rendering import EncodedRow, Refusal, Rendering, RowEncoder, encode_rows, prepare_targets
from flywheel_assets.records import Reason
from flywheel_assets.training._stages import build_sft_rows
from flywheel_assets.training.examples import encode
from flywheel_assets_tests.models.architectures import NAMES, list_architectures, make_tokenizer
from flywheel_assets_tests.training.small_world import exported

CHAT = tuple(name for name in NAMES if list_architectures()[name].template)
USER = {"role": "user", "content": "Turn on the lights."}
SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {
    "role": "assistant",
    "tool_calls": [{"type": "function", "function": {"name": "switch", "arguments": {"on": True}}}],
}
TOOLS = [{"type": "function", "function": {"name": "switch", "description": "Switch.", "parameters": {}}}]
TALKS: dict[str, list[dict[str, Any]]] = {
    "one turn": [USER],
    "system first": [SYSTEM, USER],
    "several turns": [USER, {"role": "assistant", "content": "Which room?"}, {"role": "user", "content": " All 12\n"}],
}
DAY = date(2026, 3, 2)


def row_of(talk: list[dict[str, Any]], chosen: str = "Done!", rejected: str | None = "No.", **more: Any) -> ExportedRow:
    return exported(1, json.dumps(talk), chosen, rejected, "u", prompt_format="messages", **more)


def make_encoder(name: str, **rendering: Any) -> RowEncoder:
    kwargs = list_architectures()[name].kwargs
    return RowEncoder(make_tokenizer(name), Rendering(chat_template_kwargs=kwargs, **rendering))


def render(name: str, row: ExportedRow, answer: str | None) -> list[int]:
    """The ids that transformers makes of a row's prompt, or of the whole conversation, on the day of the row.

    The template is the published one, with the day written in the place of the call that asks for it.
    """
    messages = decode_messages(row.prompt)
    if answer is not None:
        messages.append(decode_answer(answer, row.chosen_message))
    tokenizer = make_tokenizer(name)
    template = re.sub(r'strftime_now\("([^"]+)"\)', lambda asked: f'"{DAY:{asked[1]}}"', tokenizer.chat_template)
    ids: list[int] = tokenizer.apply_chat_template(
        msgspec.to_builtins(messages),
        tools=json.loads(row.tools) if row.tools else None,
        add_generation_prompt=answer is None,
        return_dict=False,
        chat_template=template,
        **list_architectures()[name].kwargs,
    )
    return ids


def test_the_list_is_whole() -> None:
    assert tuple(list_architectures()) == NAMES
    assert len(NAMES) == 11
    assert set(NAMES) - set(CHAT) == {"gpt2", "gpt_neox"}


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", CHAT)
def test_prompt_and_completion_are_the_template_s_tokens(name: str, talk: str) -> None:
    row = row_of(TALKS[talk])
    encoder = make_encoder(name)
    (encoded,) = encoder.encode([row])
    if name == "mixtral" and talk == "system first":
        assert isinstance(encoded, Refusal)
        assert encoded.reason is Reason.TEMPLATE_REFUSED
        assert "roles must alternate" in encoded.sentence
        return
    assert isinstance(encoded, EncodedRow)
    assert encoded.rejected is not None
    tokenizer = encoder.tokenizer
    assert encoded.prompt == render(name, row, None)
    for answer, completion in (("Done!", encoded.chosen), ("No.", encoded.rejected)):
        whole = render(name, row, answer)
        ours = [*encoded.prompt, *completion]
        if name == "mistral" and talk == "system first":
            # Its template moves the system text once there is an answer: serving's prompt is kept.
            assert whole[-len(completion) :] == completion
        else:
            assert whole[: len(ours)] == ours
            # Behind the end of the turn: Gemma's and Qwen's line break, Phi's end of the text.
            assert tokenizer.decode(whole[len(ours) :]).strip() in ("", "<|endoftext|>")
    assert tokenizer.decode(encoded.chosen) == list_architectures()[name].completion
    assert tokenizer.decode(encoded.prompt).count(tokenizer.bos_token or "<none>") <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_looks_at_exactly_the_completion(name: str) -> None:
    encoder = make_encoder(name)
    (example,) = encode(encoder, [row_of([USER])])
    columns = build_sft_rows([example])
    ids, labels = columns["input_ids"][0], columns["labels"][0]
    learnt = [token for token, label in zip(ids, labels, strict=True) if label != -100]
    assert ids == [*example.prompt, *example.chosen]
    assert labels == [-100] * len(example.prompt) + example.chosen
    assert encoder.tokenizer.decode(learnt) == list_architectures()[name].completion


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_a_base_that_completes_texts_gets_the_text_and_learns_to_end(name: str) -> None:
    """Published without a template: the prompt is sent as it is, as to a completion endpoint."""
    encoder = make_encoder(name)
    row = exported(1, "def sort(x):\n", "Done!", None, "u")
    (encoded,) = encoder.encode([row])
    assert isinstance(encoded, EncodedRow)
    assert encoded.prompt == encoder.tokenizer("def sort(x):\n")["input_ids"] == encoder.encode_prompt("def sort(x):\n")
    assert encoder.tokenizer.decode([*encoded.prompt, *encoded.chosen]) == "def sort(x):\nDone!<|endoftext|>"
    assert encoder.encode_prompt("") == [encoder.tokenizer.bos_token_id]


@pytest.mark.parametrize("name", CHAT)
def test_a_text_prompt_of_an_instruct_model_is_one_user_turn(name: str) -> None:
    encoder = make_encoder(name)
    (as_text,) = encoder.encode([exported(1, "Turn on the lights.", "Done!", "No.", "u")])
    assert as_text == encoder.encode([row_of([USER])])[0]


@pytest.mark.parametrize(
    ("name", "completion"),
    [
        ("llama3", '{"name": "switch", "parameters": {"on": true}}<|eot_id|>'),
        ("qwen2", '<tool_call>\n{"name": "switch", "arguments": {"on": true}}\n</tool_call><|im_end|>'),
        ("qwen3", '<tool_call>\n{"name": "switch", "arguments": {"on": true}}\n</tool_call><|im_end|>'),
        ("qwen3_moe", '<tool_call>\n{"name": "switch", "arguments": {"on": true}}\n</tool_call><|im_end|>'),
        ("gpt_oss", ' to=functions.switch<|channel|>commentary json<|message|>{"on": true}<|call|>'),
    ],
)
def test_a_tool_call_is_written_in_the_template_s_own_form(name: str, completion: str) -> None:
    row = row_of([USER], "{}", None, tools=json.dumps(TOOLS), chosen_message=json.dumps(CALL))
    encoder = make_encoder(name)
    (encoded,) = encoder.encode([row])
    assert isinstance(encoded, EncodedRow), encoded
    ours = [*encoded.prompt, *encoded.chosen]
    assert encoded.prompt == render(name, row, None)
    assert render(name, row, "{}")[: len(ours)] == ours
    assert "Switch." in encoder.tokenizer.decode(encoded.prompt)
    assert encoder.tokenizer.decode(encoded.chosen) == completion


REASONED = {"role": "assistant", "content": "Done!", "reasoning_content": "which room?"}


@pytest.mark.parametrize(
    ("name", "kwargs", "completion"),
    [
        ("qwen3", {}, "<think>\nwhich room?\n</think>\n\nDone!<|im_end|>"),
        (
            "gpt_oss",
            {},
            "<|channel|>analysis<|message|>which room?<|end|>"
            "<|start|>assistant<|channel|>final<|message|>Done!<|return|>",
        ),
    ],
)
def test_reasoning_is_written_where_the_template_writes_it(name: str, kwargs: dict[str, Any], completion: str) -> None:
    """gpt-oss calls the field `thinking` and gives it a channel of its own."""
    encoder = RowEncoder(make_tokenizer(name), Rendering(chat_template_kwargs=kwargs))
    (encoded,) = encoder.encode([row_of([USER], "Done!", None, chosen_message=json.dumps(REASONED))])
    assert isinstance(encoded, EncodedRow), encoded
    assert encoder.tokenizer.decode(encoded.chosen) == completion


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("gpt_oss", "<|channel|>final<|message|>Done!"),
        ("gpt_oss", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Done!"),
        ("qwen3", "<think>\nHm.\n</think>\n\nDone!"),
        ("gemma3", "Done!"),
        ("mistral", "Done!"),
    ],
)
def test_the_text_of_a_generation_is_the_answer_alone(name: str, written: str) -> None:
    """Without its control tokens a gpt-oss text reads "analysisHm.assistantfinalDone!", which was compared as it is."""
    encoder = RowEncoder(make_tokenizer(name), Rendering())
    row = row_of([USER])
    (target,) = prepare_targets(encoder, [row], encode_rows(encoder, [row]))
    assert target.reference == "Done!"
    ids = encoder.tokenizer(written, add_special_tokens=False)["input_ids"]
    assert encoder.read_answer(target, ids) == "Done!"


def test_a_lead_that_shares_a_token_with_the_answer_opens_nothing() -> None:
    encoder = make_encoder("llama3")
    ids = encoder.tokenizer(" lights are on", add_special_tokens=False)["input_ids"]
    assert encoder.tokenizer.decode(ids[:1]) == " lights"
    assert encoder.find_opening(ids, "lights are on") == []


@pytest.mark.parametrize("name", ["llama3", "gpt_oss"])
def test_a_template_that_writes_the_date_writes_the_row_s(name: str) -> None:
    """It wrote the day of the training: other tokens on every day, and not those that serving had sent."""
    encoder = make_encoder(name)
    first, other = encoder.encode([row_of([USER]), row_of([USER], completed_date="2025-12-31")])
    assert isinstance(first, EncodedRow)
    assert isinstance(other, EncodedRow)
    written = "02 Mar 2026" if name == "llama3" else "2026-03-02"
    assert written in encoder.tokenizer.decode(first.prompt)
    assert ("31 Dec 2025" if name == "llama3" else "2025-12-31") in encoder.tokenizer.decode(other.prompt)
    today = encoder.encode_prompt(USER["content"])
    assert written not in encoder.tokenizer.decode(today)
