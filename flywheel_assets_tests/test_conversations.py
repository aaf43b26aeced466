"""One form of a conversation: what it is read from, what is stored, and that nothing stored can end a later step."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flywheel_assets.conversations import (
    Message,
    Role,
    decode_answer,
    decode_messages,
    encode_answer,
    encode_prompt,
    encode_tools,
    find_answer_problem,
    find_role_problem,
    find_tools_problem,
    read_answer_text,
    split_prompt,
    split_reasoning,
)
from flywheel_assets.records import PromptFormat

# The first text of a process takes seconds to draw.
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
USER = {"role": "user", "content": "Turn on the lights."}
CALL = {"function": {"name": "light", "arguments": {"room": "hall"}}, "id": "c1", "type": "function"}


def read(*messages: dict[str, Any]) -> list[Message]:
    return msgspec.json.decode(json.dumps(messages), type=list[Message])


def stored(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as they are stored, which is also what a chat template is given."""
    text, prompt_format = encode_prompt(read(*messages))
    assert prompt_format is PromptFormat.MESSAGES
    found: list[dict[str, Any]] = json.loads(text)
    return found


@pytest.mark.parametrize(
    "spelling",
    [
        {"tool_calls": [CALL]},
        {"content": None, "tool_calls": [{"id": "c1", "function": {"name": "light", "arguments": '{"room": "hall"}'}}]},
        {"tool_calls": [{"id": "c1", "name": "light", "arguments": {"room": "hall"}}]},
        {"tool_calls": [{"id": "c1", "type": "function", "name": "light", "arguments": '{"room":"hall"}'}]},
    ],
)
def test_a_call_is_stored_in_the_one_form_that_templates_read(spelling: dict[str, Any]) -> None:
    assert stored(USER, {"role": "assistant", **spelling})[1]["tool_calls"] == [CALL]


def test_the_older_call_of_a_function_and_its_answer() -> None:
    called = {"role": "assistant", "content": None, "function_call": {"name": "light", "arguments": '{"room": "hall"}'}}
    answered = {"role": "function", "name": "light", "content": "on"}
    expected = {"function": {"name": "light", "arguments": {"room": "hall"}}, "type": "function"}
    assert stored(USER, called, answered) == [
        USER,
        {"role": "assistant", "tool_calls": [expected]},
        {"role": "tool", "name": "light", "content": "on"},
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", {}),
        ("{}", {}),
        ('{"a": 1e2}', {"a": 100.0}),
        ("[1]", "[1]"),
        ('{"a": NaN}', '{"a": NaN}'),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
        ('{"a":' * 100 + "1" + "}" * 100, '{"a":' * 100 + "1" + "}" * 100),
    ],
)
def test_arguments_that_are_no_object_stay_text(arguments: str, expected: Any) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    [_, message] = stored(USER, {"role": "assistant", "tool_calls": [call]})
    assert message["tool_calls"][0]["function"]["arguments"] == expected


def test_a_call_without_arguments_is_stored_with_none_of_them() -> None:
    """Templates write `arguments | tojson`, which an absent field would end."""
    [_, message] = stored(USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]})
    assert message["tool_calls"] == [{"function": {"name": "f", "arguments": {}}, "type": "function"}]


def test_one_text_part_is_a_text_and_other_parts_are_kept() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    text = {"type": "text", "text": "What is this?"}
    assert stored({"role": "user", "content": [text]}) == [{"role": "user", "content": "What is this?"}]
    [message] = read({"role": "user", "content": [text, image]})
    assert message.content == [text, image]
    assert read_answer_text(message) == "What is this?\n[image_url]"


def test_fields_that_are_not_known_and_empty_lists_of_calls_are_not_stored() -> None:
    answer = {"role": "assistant", "content": "Done.", "tool_calls": [], "refusal": None, "annotations": [1]}
    assert stored(USER, answer)[1] == {"role": "assistant", "content": "Done."}


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "no message of role 'user'; a prompt needs one (valid roles: system, developer, user, assistant, tool)"),
        ([{"role": "system", "content": "Be kind."}], "no message of role 'user'"),
        ([{"role": "tool", "content": "42"}], "no message of role 'user'"),
        ([USER, {"role": "assistant"}], "message 1 (assistant) has neither `content` nor `tool_calls`"),
        ([{"role": "user", "content": []}], "message 0 (user) has neither `content` nor `tool_calls`"),
        ([USER, {"role": "assistant", "content": [], "tool_calls": [CALL]}], None),
        ([{"role": "user", "tool_calls": [CALL]}], "message 0 has `tool_calls` and role 'user'"),
        ([USER, {"role": "user", "content": [{"text": "x"}]}], "message 1: part 0 of `content` has no `type`"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "part 0 of `content` has type 'text' and no"),
        ([USER, USER], None),
        ([USER, {"role": "assistant", "content": "Sure, "}], None),
        ([{"role": "developer", "content": "Be kind."}, USER], None),
    ],
)
def test_roles_that_no_chat_model_can_answer(messages: list[dict[str, Any]], says: str | None) -> None:
    problem = find_role_problem(read(*messages))
    assert problem is None if says is None else says in str(problem)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("text", None),
        ([], "0 messages; an answer is one"),
        ([{"role": "assistant", "content": "a"}] * 2, "2 messages"),
        ([{"role": "assistant", "content": "a"}], None),
        ([{"role": "user", "content": "a"}], "role 'user'; an answer has role 'assistant'"),
        ([{"role": "assistant"}], "neither `content` nor `tool_calls`"),
    ],
)
def test_answers_in_files_may_be_lists_of_one(answer: Any, says: str | None) -> None:
    decoded = msgspec.convert(answer, str | list[Message])
    problem = find_answer_problem(decoded)
    assert problem is None if says is None else says in str(problem)
    if says is None:
        assert encode_answer(decoded) == ("text" if answer == "text" else "a", None)


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
        ({"function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
        ({"name": "f", "parameters": {}}, {"type": "function", "function": {"name": "f", "parameters": {}}}),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "web_search"}, {"type": "web_search"}),
    ],
)
def test_tools_are_stored_in_the_one_form_that_templates_read(tool: dict[str, Any], expected: dict[str, Any]) -> None:
    assert find_tools_problem([tool]) is None
    assert json.loads(encode_tools([tool]) or "") == [expected]


@pytest.mark.parametrize("tool", [{}, {"name": 1}, {"function": "f"}, {"function": {"description": "x"}}])
def test_what_is_no_tool(tool: dict[str, Any]) -> None:
    assert "tool 0" in str(find_tools_problem([tool]))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def test_what_is_nested_too_deeply_is_refused_at_once() -> None:
    """Whatever is read at the door is written and read again later, with less room on the stack."""
    call = {"function": {"name": "f", "arguments": nested(200)}}
    for message in ({"role": "user", "content": [nested(200)]}, {"role": "assistant", "tool_calls": [call]}):
        with pytest.raises(msgspec.ValidationError, match="nested too deeply; valid: 64 levels"):
            read(message)
    assert "nested too deeply" in str(find_tools_problem([{"name": "f", "parameters": nested(200)}]))


def test_an_answer_needs_its_message_only_where_its_text_is_not_all() -> None:
    plain = Message(Role.ASSISTANT, "Done.")
    assert encode_answer(plain) == ("Done.", None)
    assert decode_answer("Done.", None) == plain
    [calling] = read({"role": "assistant", "content": "On it.", "tool_calls": [CALL], "reasoning_content": "Hm."})
    text, message = encode_answer(calling)
    assert text == 'On it.\n{"name": "light", "arguments": {"room": "hall"}}'
    assert decode_answer(text, message) == calling


def test_the_three_parts_of_a_prompt() -> None:
    prompt, prompt_format = encode_prompt(
        read(
            {"role": "system", "content": "Be kind."},
            USER,
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "content": "on"},
            {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
            {"role": "assistant", "content": "Sure, "},
        )
    )
    parts = split_prompt(prompt, prompt_format)
    assert (parts.operator, parts.request) == ("Be kind.", "And now?")
    assert parts.context == 'Turn on the lights.\n{"name": "light", "arguments": {"room": "hall"}}\non\nSure, '


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a sum</think>Four.", ("a sum", "Four.")),
        ("a sum</think>\n\nFour.", ("a sum", "Four.")),
        ("a sum\n</think>\nFour.", ("a sum", "Four.")),
        ("a sum\r\n</think> \r\n\r\nFour.", ("a sum", "Four.")),
        ("</think>\nFour.", ("", "Four.")),
        (" <reasoning>a </ sum</reasoning>\n\nFour.", ("a </ sum", "Four.")),
        ("<think>a sum", ("<think>a sum", "")),
        ("Four.", ("", "Four.")),
    ],
)
def test_reasoning_stands_before_the_answer(text: str, expected: tuple[str, str]) -> None:
    assert split_reasoning(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The tag `</think>` ends it.",
        "Write </think> after it.\nThen the answer.",
        "It ends with </think>",
        "A block looks so:\n<think>\na sum\n</think>\nThe answer follows.",
        "It opens with <think> and ends with </think>.\n\nNothing else.",
    ],
)
def test_an_answer_that_speaks_of_the_tags_is_no_reasoning(text: str) -> None:
    """Every text that mentioned the closing tag lost what stood before it."""
    assert split_reasoning(text) == ("", text)


@given(st.text() | st.text(st.sampled_from("</>think\n a")))
def test_a_text_without_tags_is_all_answer(text: str) -> None:
    assume("think>" not in text)
    assert split_reasoning(text) == ("", text)


@given(st.text(st.sampled_from("ab`.\n <")), st.text(st.sampled_from("ab`.\n <")))
def test_both_parts_of_an_opened_block_come_back(reasoning: str, answer: str) -> None:
    assert split_reasoning(f"<think>{reasoning}</think>{answer}") == (reasoning.strip(), answer.lstrip())
    assert split_reasoning(f"{reasoning}\n</think>\n{answer}") == (reasoning.strip(), answer.lstrip())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=5), values, max_size=3)
functions = st.fixed_dictionaries(
    {"name": st.text(max_size=5)}, optional={"arguments": st.text(max_size=9) | objects | objects.map(json.dumps)}
)
calls = st.fixed_dictionaries({}, optional={"function": functions, "name": st.text(max_size=5), "id": st.text()})
parts = objects | st.fixed_dictionaries({"type": st.sampled_from(["text", "image"])}, optional={"text": st.text()})
conversations = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from([*Role, "function"])},
        optional={
            "content": st.none() | st.text() | st.lists(parts, max_size=3),
            "name": st.text(max_size=5),
            "tool_calls": st.none() | st.lists(calls, max_size=2),
            "function_call": st.none() | functions,
            "reasoning_content": st.text(max_size=9),
            "unknown": values,
        },
    ),
    max_size=4,
)


@QUICK
@given(conversations)
def test_what_decodes_is_stored_read_back_equal_and_parted_by_every_later_step(sent: list[dict[str, Any]]) -> None:
    try:
        messages = read(*sent)
    except msgspec.ValidationError:
        return
    prompt, prompt_format = encode_prompt(messages)
    assert decode_messages(prompt) == messages
    assert encode_prompt(decode_messages(prompt))[0] == prompt
    split_prompt(prompt, prompt_format)
    for message in messages:
        text, stored_message = encode_answer(message)
        if message.role is Role.ASSISTANT and find_answer_problem(message) is None:
            assert decode_answer(text, stored_message) == message
        for call in json.loads(msgspec.json.encode(message)).get("tool_calls", ()):
            assert call["type"]
            assert call["function"]["name"]
            assert "arguments" in call["function"]


@QUICK
@given(st.text() | conversations.map(json.dumps) | values.map(json.dumps))
def test_any_stored_prompt_can_be_parted(prompt: str) -> None:
    """Rows from before roles were checked hold anything that was JSON, or none at all."""
    for prompt_format in PromptFormat:
        split_prompt(prompt, prompt_format)
