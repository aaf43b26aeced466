"""Each row is encoded exactly as the chat template renders the whole conversation, or refused with its reason."""

import copy
import json
import random
from typing import Any

import msgspec
import pytest

from flywheel_assets.conversations import Message, decode_answer, decode_messages
from flywheel_assets.conversations import encode_prompt as store_prompt
from flywheel_assets.errors import TrainingError
from flywheel_assets.lake.versions.exports import ExportedRow
from flywheel_assets.models.rendering import (
    EncodedRow,
    Refusal,
    Rendering,
    RowEncoder,
    encode_rows,
    prepare_targets,
)
from flywheel_assets.records import Reason
from flywheel_assets_tests.models.chat_templates import FAMILIES, MISTRAL_V3_TEMPLATE, make_tokenizer
from flywheel_assets_tests.training.small_world import exported

USER = {"role": "user", "content": "Turn on the living room lights."}
CALL = {
    "role": "assistant",
    "tool_calls": [{"type": "function", "function": {"name": "control_light", "arguments": {"room": "living room"}}}],
}
RESULT = {"role": "tool", "name": "control_light", "content": "The lights are now on."}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
TOOLS = [{"type": "function", "function": {"name": "control_light", "parameters": {"type": "object"}}}]
CONVERSATIONS: dict[str, Any] = {
    "one turn": [USER],
    "system first": [{"role": "system", "content": "Be kind."}, USER],
    "system only": [{"role": "system", "content": "Be kind."}],
    "system in the middle": [USER, {"role": "system", "content": "Be brief."}, USER],
    "two users": [{"role": "user", "content": "a one"}, {"role": "user", "content": "b two"}],
    "several turns": [USER, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "And off?"}],
    "developer": [{"role": "developer", "content": "Be kind."}, USER],
    "prefill": [{"role": "user", "content": "Start"}, {"role": "assistant", "content": "Sure, "}],
    "tool only": [{"role": "tool", "content": "42"}],
    "after a tool call": [USER, CALL, RESULT],
    "one text part": [{"role": "user", "content": [{"type": "text", "text": "What is the sky?"}]}],
    "two text parts": [
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "text", "text": "is?"}]}
    ],
    "an image": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}],
    "reasoning before": [
        USER,
        {"role": "assistant", "content": "<think>\nwhich room?\n</think>\n\nDone.", "name": "a"},
        USER,
    ],
    "unicode": [{"role": "user", "content": "Ünïcödé 😀 \u2028 \t tabs"}],
    "empty content": [{"role": "user", "content": ""}],
    "unknown role": [{"role": "human", "content": "Hi"}],
    "empty role": [{"role": "", "content": ""}],
}
ANSWERS: dict[str, Any] = {
    "text": ("Done! The lights are on now.", None),
    "line breaks": ("\n\n  Done!\n\n", None),
    "tool call": ("{}", json.dumps(CALL)),
    "reasoning": ("Done!", json.dumps({"role": "assistant", "content": "Done!", "reasoning_content": "which?"})),
}


def row_of(prompt: Any, chosen: str = "Done!", rejected: str | None = None, **more: Any) -> ExportedRow:
    is_text = isinstance(prompt, str)
    return exported(
        1,
        prompt if is_text else json.dumps(prompt),
        chosen,
        rejected,
        "u",
        prompt_format="text" if is_text else "messages",
        **more,
    )


def encode(family: str, row: ExportedRow, template: str | None = None, **rendering: Any) -> EncodedRow | Refusal:
    (encoded,) = RowEncoder(make_tokenizer(family, template), Rendering(**rendering)).encode([row])
    return encoded


def render_whole(tokenizer: Any, row: ExportedRow, **more: Any) -> tuple[list[int], str]:
    """The ids and the text that transformers makes of the whole conversation, with text parts joined."""
    messages = [*decode_messages(row.prompt), decode_answer(row.chosen, row.chosen_message)]
    built = [
        msgspec.to_builtins(
            each
            if not isinstance(each.content, list)
            else msgspec.structs.replace(each, content="\n".join(part["text"] for part in each.content))
        )
        for each in messages
    ]
    tools = json.loads(row.tools) if row.tools else None
    ids = tokenizer.apply_chat_template(built, tools=tools, tokenize=True, return_dict=False, **more)
    return ids, tokenizer.apply_chat_template(built, tools=tools, tokenize=False, **more)


def render_prompt(tokenizer: Any, row: ExportedRow, **more: Any) -> list[int]:
    messages = [
        {**each, "content": "\n".join(part["text"] for part in each["content"])}
        if isinstance(each.get("content"), list)
        else each
        for each in json.loads(row.prompt)
    ]
    tools = json.loads(row.tools) if row.tools else None
    ids: list[int] = tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=True, add_generation_prompt=True, return_dict=False, **more
    )
    return ids


def kwargs_of(family: str) -> dict[str, Any]:
    return {"thinking": False} if family == "deepseek" else {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("said", CONVERSATIONS)
@pytest.mark.parametrize("answered", ANSWERS)
def test_a_row_is_encoded_as_the_whole_conversation_or_refused(family: str, said: str, answered: str) -> None:
    tokenizer, more = make_tokenizer(family), kwargs_of(family)
    text, message = ANSWERS[answered]
    row = row_of(CONVERSATIONS[said], text, tools=json.dumps(TOOLS), chosen_message=message)
    encoded = encode(family, row, chat_template_kwargs=more)
    if isinstance(encoded, Refusal):
        assert encoded.reason in Reason
        assert "living room" not in encoded.sentence
        return
    assert encoded.prompt == render_prompt(tokenizer, row, **more)
    ids, whole = render_whole(tokenizer, row, **more)
    ours = [*encoded.prompt, *encoded.chosen]
    # Behind the end of the turn a template may write a line break, and Phi's the end of the text.
    tail = tokenizer.decode(ids[len(ours) :], skip_special_tokens=True)
    assert not tail.strip()
    if answered == "line breaks" and ids[: len(ours)] != ours:
        # Prompt and answer meet in one token that serving never sees: apart, to the same text.
        assert whole.startswith(tokenizer.decode(ours))
    else:
        assert ids[: len(ours)] == ours
    assert ours[-1] in tokenizer.all_special_ids


def test_the_ordinary_conversation_is_refused_by_no_family() -> None:
    for family in FAMILIES:
        for said in ("one turn", "several turns", "unicode", "one text part", "two text parts"):
            encoded = encode(family, row_of(CONVERSATIONS[said]), chat_template_kwargs=kwargs_of(family))
            assert isinstance(encoded, EncodedRow), (family, said, encoded)


@pytest.mark.parametrize(
    ("family", "said", "reason", "sentence"),
    [
        ("gemma", "system first", "template_refused", "System role not supported"),
        ("gemma", "two users", "template_refused", "roles must alternate"),
        ("mistral", "two users", "template_refused", "roles must alternate"),
        ("mistral", "after a tool call", "template_refused", "'dict object' has no attribute 'content'"),
        ("deepseek", "tool only", "template_refused", "unknown role tool"),
        ("chatml", "prefill", "unfinished_turn", "ends in an assistant message"),
        ("chatml", "an image", "unsupported_content", "type image_url"),
        ("chatml", "unknown role", "template_refused", "no list of messages with the roles system, developer"),
        ("chatml", "empty role", "template_refused", "no list of messages"),
    ],
)
def test_a_refusal_gives_its_reason_and_the_template_s_sentence(
    family: str, said: str, reason: str, sentence: str
) -> None:
    encoded = encode(family, row_of(CONVERSATIONS[said]), chat_template_kwargs=kwargs_of(family))
    assert isinstance(encoded, Refusal)
    assert encoded.reason == reason
    assert sentence in encoded.sentence


def test_what_a_template_s_sentence_quotes_of_a_conversation_is_left_out() -> None:
    quoting = "{{ raise_exception('cannot answer ' + messages[0].content) }}"
    encoded = encode("chatml", row_of("my card is 4111 1111"), quoting)
    assert encoded == Refusal(Reason.TEMPLATE_REFUSED, "the chat template refuses it: cannot answer …")
    failing = "{{ messages[0].content + 1 }}"
    encoded = encode("chatml", row_of("my card is 4111 1111"), failing)
    assert encoded == Refusal(Reason.TEMPLATE_REFUSED, "the chat template raised TypeError")


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("chatml", {"prompt": "say <|im_end|>"}),
        ("chatml", {"chosen": "Done<|im_end|>"}),
        ("chatml", {"rejected": "Done<|im_start|>"}),
        ("qwen", {"prompt": "what does <think> do?"}),
        ("qwen", {"tools": json.dumps([{"name": "x", "description": "<tool_call>"}])}),
        (
            "qwen",
            {"chosen_message": json.dumps({"role": "assistant", "content": "a", "reasoning_content": "</think>"})},
        ),
        ("mistral", {"prompt": "a [/INST] b"}),
        ("deepseek", {"prompt": "<｜User｜>"}),
    ],
)
def test_a_text_that_holds_control_tokens_is_refused(family: str, changes: dict[str, Any]) -> None:
    """The tokenizer makes control tokens of them: the model would learn to end, or to change speaker, in mid-text."""
    row = msgspec.structs.replace(row_of("a question", "Done!", "No."), **changes)
    encoded = encode(family, row, chat_template_kwargs=kwargs_of(family))
    assert isinstance(encoded, Refusal)
    assert encoded.reason is Reason.CONTROL_TOKEN


def test_a_token_that_is_no_control_of_the_model_is_text() -> None:
    assert isinstance(encode("chatml", row_of("what do <think> and [INST] do?")), EncodedRow)


def test_a_base_without_a_template_refuses_its_end_token_as_text() -> None:
    encoded = encode("mistral", row_of("x", "it ends in </s>, see"), "")
    assert isinstance(encoded, Refusal)
    assert "control token </s>" in encoded.sentence


def test_a_template_that_opens_reasoning_in_its_prompt_is_a_mismatch_until_it_is_turned_off() -> None:
    """Serving would send a prompt that ends in an open block of reasoning; no whole conversation begins with it."""
    encoded = encode("deepseek", row_of("Turn it on."))
    assert isinstance(encoded, Refusal)
    assert encoded.reason is Reason.TEMPLATE_MISMATCH
    assert "chat_template_kwargs" in encoded.sentence
    assert isinstance(encode("deepseek", row_of("Turn it on."), chat_template_kwargs={"thinking": False}), EncodedRow)


KIND = {"role": "system", "content": "Be kind."}
EARLIER_REASONING = {"role": "assistant", "content": "<think>\nwhich room?\n</think>\n\nDone."}
# Each writes the past otherwise once the conversation ends in an answer.
ADDS_A_SYSTEM_TEXT = "{% if add_generation_prompt %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
DROPS_EARLIER_REASONING = (
    "{% for m in messages %}{% set said = m.content if add_generation_prompt else m.content.split('</think>')[-1] %}"
    "{{ '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("family", "template", "said", "completion"),
    [
        ("mistral", MISTRAL_V3_TEMPLATE, [KIND, USER], " Done!</s>"),
        ("mistral", MISTRAL_V3_TEMPLATE, [KIND, USER, {"role": "assistant", "content": "Yes."}, USER], " Done!</s>"),
        # An earlier turn that reads like the end of the prompt is not taken for it.
        (
            "mistral",
            MISTRAL_V3_TEMPLATE,
            [
                KIND,
                {"role": "user", "content": "Be kind.\n\nGo on."},
                {"role": "assistant", "content": "Yes."},
                {"role": "user", "content": "Go on."},
            ],
            " Done!</s>",
        ),
        ("chatml", ADDS_A_SYSTEM_TEXT + FAMILIES["chatml"].template, [USER], "Done!<|im_end|>"),
        ("chatml", DROPS_EARLIER_REASONING, [USER, EARLIER_REASONING, USER], "Done!<|im_end|>"),
        (
            "channels",
            ADDS_A_SYSTEM_TEXT + FAMILIES["channels"].template,
            [USER],
            "<|channel|>final<|message|>Done!<|return|>",
        ),
    ],
)
def test_a_template_may_write_the_past_otherwise_once_there_is_an_answer(
    family: str, template: str, said: list[Any], completion: str
) -> None:
    """Mistral v0.3 writes the system text into the last turn, if that is a user's: every such row was refused.

    The model sees what serving sends, so that is the prompt; the completion is what follows it in either rendering.
    """
    tokenizer = make_tokenizer(family, template)
    row = row_of(said)
    encoded = encode(family, row, template)
    assert isinstance(encoded, EncodedRow)
    assert encoded.prompt == render_prompt(tokenizer, row)
    assert tokenizer.decode(encoded.chosen) == completion
    _, whole = render_whole(tokenizer, row)
    assert whole.rstrip().endswith(completion)
    assert not whole.startswith(tokenizer.decode(encoded.prompt)), "else this test shows nothing"


@pytest.mark.parametrize(
    "written_last",
    # A block that the answer's own rendering lacks, and a header that depends on the answer.
    ["{{ 'Think.\n' if add_generation_prompt else '' }}", "{{ messages[-1].content[:2] }}"],
)
def test_a_prompt_that_ends_otherwise_than_what_stands_before_the_answer_is_a_mismatch(written_last: str) -> None:
    template = (
        ADDS_A_SYSTEM_TEXT
        + "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        + written_last
        + "{{ m.content }}<|im_end|>{% else %}"
        + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endif %}"
        + "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        + written_last
        + "{% endif %}"
    )
    encoded = encode("chatml", row_of([USER]), template)
    assert isinstance(encoded, Refusal)
    assert encoded.reason is Reason.TEMPLATE_MISMATCH


def _write_conversations(seed: int, count: int) -> list[ExportedRow]:
    chance = random.Random(seed)
    pieces = [
        "The lights",
        " are",
        "on",
        "\n",
        "\n\n",
        "  ",
        " ",
        "ü",
        "😀",
        "\u2028",
        "\t",
        "12345",
        "x_y(z);",
        "<",
        "|",
        "[",
        "]",
    ]

    def write() -> str:
        return "".join(chance.choices(pieces, k=chance.randrange(12)))

    rows = []
    for _ in range(count):
        said = [{"role": role, "content": write()} for role in ["user", "assistant"] * chance.randrange(3) + ["user"]]
        rows.append(
            row_of(said if chance.random() < 0.9 else write(), write(), write() if chance.random() < 0.7 else None)
        )
    return rows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opening", [None, "first", "always", "normalizer"])
def test_only_the_tail_is_encoded_again_and_the_tokens_are_the_same(family: str, opening: str | None) -> None:
    """The prompt is encoded once, and answers from its last special token on; `opening`: how a ▁ gets before words."""
    tokenizer = copy.deepcopy(make_tokenizer(family))
    if opening is not None:
        _make_sentencepiece_like(tokenizer, opening)
    rendering = Rendering(chat_template_kwargs=kwargs_of(family))
    rows = _write_conversations(len(family), 60)
    fast, slow = RowEncoder(tokenizer, rendering), RowEncoder(tokenizer, rendering)
    slow._borders, slow._backend = {}, None
    assert fast._borders
    encoded = fast.encode(rows)
    assert encoded == slow.encode(rows)
    assert sum(isinstance(each, EncodedRow) for each in encoded) > 30


def _make_sentencepiece_like(tokenizer: Any, opening: str) -> None:
    from tokenizers import normalizers, pre_tokenizers

    backend = tokenizer.backend_tokenizer
    if opening == "normalizer":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        words = pre_tokenizers.Metaspace(prepend_scheme=opening)
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )


def test_a_tokenizer_that_pads_or_cuts_by_itself_does_neither_here() -> None:
    """Some tokenizer files ask for it: the rows of a batch would depend on each other, or end early."""
    tokenizer = copy.deepcopy(make_tokenizer("chatml"))
    rows = [row_of([USER]), row_of([USER, CALL, RESULT])]
    expected = RowEncoder(tokenizer, Rendering()).encode(rows)
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding()
    assert RowEncoder(tokenizer, Rendering()).encode(rows) == expected


def test_variables_of_the_template_reach_it() -> None:
    tokenizer = make_tokenizer("qwen")
    row = row_of([USER])
    default, off = encode("qwen", row), encode("qwen", row, chat_template_kwargs={"enable_thinking": False})
    assert isinstance(default, EncodedRow)
    assert isinstance(off, EncodedRow)
    assert tokenizer.decode(default.prompt).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(off.prompt).endswith("<think>\n\n</think>\n\n")
    assert [*default.prompt, *default.chosen] == [*off.prompt, *off.chosen]
    assert tokenizer.decode(off.chosen) == "Done!<|im_end|>"


def test_tools_reach_the_template_and_a_tool_call_is_an_answer() -> None:
    tokenizer = make_tokenizer("qwen")
    row = row_of([USER], "{}", tools=json.dumps(TOOLS), chosen_message=json.dumps(CALL))
    encoded = encode("qwen", row)
    assert isinstance(encoded, EncodedRow)
    assert '"name": "control_light"' in tokenizer.decode(encoded.prompt)
    assert tokenizer.decode(encoded.chosen).endswith("</tool_call><|im_end|>")


def test_a_completion_ends_with_the_token_that_ends_the_turn() -> None:
    ends = {}
    for family in FAMILIES:
        encoded = encode(family, row_of([USER]), chat_template_kwargs=kwargs_of(family))
        assert isinstance(encoded, EncodedRow)
        ends[family] = make_tokenizer(family).decode(encoded.chosen[-1:])
    assert (
        ends
        == {
            "chatml": "<|im_end|>",
            "llama3": "<|eot_id|>",
            "mistral": "</s>",
            "gemma": "<end_of_turn>",
            "phi": "<|end|>",
            "qwen": "<|im_end|>",
            "channels": "<|return|>",
            "deepseek": "<｜end▁of▁sentence｜>",
        }
        or ends["deepseek"] == ""
    )


def test_a_template_without_an_end_gets_the_tokenizer_s() -> None:
    plain = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    encoded = encode("chatml", row_of([USER]), plain)
    assert isinstance(encoded, EncodedRow)
    assert make_tokenizer("chatml").decode(encoded.chosen) == "assistant: Done!\n<|im_end|>"


def test_a_text_prompt_is_one_user_turn_where_the_base_has_a_template() -> None:
    """It used to be fed raw to instruct models: trained and judged on prompts that no chat endpoint ever sends."""
    tokenizer = make_tokenizer("llama3")
    as_text, as_messages = encode("llama3", row_of(USER["content"])), encode("llama3", row_of([USER]))
    assert as_text == as_messages
    raw = encode("llama3", row_of(USER["content"]), wrap_text_prompts=False)
    assert isinstance(raw, EncodedRow)
    assert tokenizer.decode(raw.prompt) == USER["content"]
    assert encode("llama3", row_of(USER["content"]), "") == raw
    encoder = RowEncoder(tokenizer, Rendering())
    assert isinstance(as_text, EncodedRow)
    assert encoder.encode_prompt(USER["content"]) == as_text.prompt


def test_messages_without_a_template_are_plain_turns() -> None:
    tokenizer = make_tokenizer("chatml", "")
    said = [{"role": "system", "content": "Be kind."}, USER, CALL, RESULT]
    encoded = encode("chatml", row_of(said, tools=json.dumps(TOOLS)), "")
    assert isinstance(encoded, EncodedRow)
    assert tokenizer.decode(encoded.prompt) == (
        f"tools: {json.dumps(TOOLS)}\n\nsystem: Be kind.\n\nuser: Turn on the living room lights.\n\n"
        'assistant: {"name": "control_light", "arguments": {"room": "living room"}}\n\n'
        "tool: The lights are now on.\n\nassistant:\n"
    )
    assert tokenizer.decode(encoded.chosen) == "Done!<|im_end|>"


def test_parts_stay_parts_for_a_template_that_takes_only_parts() -> None:
    """Templates of models for pictures loop over a content's parts, and write nothing of a text."""
    parts = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for p in m.content %}{{ p.text }}{% endfor %}"
        "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tokenizer = make_tokenizer("chatml", parts)
    encoded = encode("chatml", row_of([USER]), parts)
    assert isinstance(encoded, EncodedRow)
    assert USER["content"] in tokenizer.decode(encoded.prompt)
    assert tokenizer.decode(encoded.chosen) == "Done!<|im_end|>"


def test_a_row_that_is_too_long_is_refused_with_its_numbers() -> None:
    row = row_of([USER], "Done!", "A far longer answer than that.")
    whole = encode("chatml", row)
    assert isinstance(whole, EncodedRow)
    assert whole.rejected is not None
    length = len(whole.prompt) + len(whole.rejected)
    assert encode("chatml", row, max_length=length) == whole
    refused = encode("chatml", row, max_length=length - 1)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.TOO_MANY_TOKENS
    assert f"max_length is {length - 1}" in refused.sentence
    encoder = RowEncoder(make_tokenizer("chatml"), Rendering(max_length=length - 1))
    with pytest.raises(TrainingError, match="too_many_tokens"):
        encode_rows(encoder, [row])


def test_what_a_template_writes_around_an_answer_is_no_part_of_the_text_that_is_compared() -> None:
    rows = {
        "channels": (row_of([USER]), "final", "<|channel|>final<|message|>Done!"),
        "qwen": (row_of([USER]), "<think>\n\n</think>\n\n", "<think>\nhm\n</think>\n\nDone!"),
        "chatml": (row_of([USER]), "", "Done!"),
    }
    for family, (row, lead, written) in rows.items():
        encoder = RowEncoder(make_tokenizer(family), Rendering())
        (target,) = prepare_targets(encoder, [row], encode_rows(encoder, [row]))
        assert (target.lead, target.reference) == (lead, "Done!")
        assert encoder.read_answer(target, encoder.tokenizer.encode(written, add_special_tokens=False)) == "Done!"


def test_rows_of_one_batch_do_not_depend_on_each_other() -> None:
    encoder = RowEncoder(make_tokenizer("gemma"), Rendering())
    rows = [row_of(said) for said in CONVERSATIONS.values()]
    assert encoder.encode(rows) == [encoder.encode([row])[0] for row in rows]


def test_a_prompt_that_the_template_refuses_is_an_error_for_serving() -> None:
    stored, kind = store_prompt([Message("system", "Be kind.")])  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="System role not supported"):
        RowEncoder(make_tokenizer("gemma"), Rendering()).encode_prompt(stored, kind)
