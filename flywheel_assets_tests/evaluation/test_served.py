"""Answers by a real server that speaks vLLM's protocol well, badly, slowly, or not at all."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flywheel_assets.errors import ModelServerUnavailableError, SettingsError
from flywheel_assets.evaluation._served import Question, ServedModels, open_server
from flywheel_assets.evaluation.answers import Answer
from flywheel_assets.evaluation.options import GenerationServer
from flywheel_assets.models.rendering import Rendering, Target
from flywheel_assets_tests.evaluation.model_server import ModelServer, serve
from flywheel_assets_tests.training.small_world import exported

TARGET = Target(prompt=[1, 5, 6], reference="right", lead="", opening=[], tokens=2, turn_end=2)
MESSAGES = json.dumps(
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": {"at": "Bonn"}}}]},
        {"role": "tool", "content": "rain", "tool_call_id": "1"},
    ]
)
TOOLS = json.dumps([{"type": "function", "function": {"name": "look"}}])


def questions(count: int = 1, sample: int | None = None, **row: Any) -> dict[str, Question]:
    return {
        f"key-{number}": Question(exported(number, f"# ask {number}\n", "right", "wrong", "u", **row), TARGET, sample)
        for number in range(count)
    }


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serve() as running:
        yield running


@contextmanager
def opened(server: ModelServer, key_file: str | None = None, **options: Any) -> Iterator[ServedModels]:
    """The server's models; pauses are written down and not waited for."""
    is_chat, rendering = options.pop("is_chat", True), options.pop("rendering", Rendering())
    configured = GenerationServer(**{"url": server.url, "base_model": "base", "timeout_s": 5.0, **options})
    with open_server(configured, key_file, rendering=rendering, is_chat=is_chat, max_new_tokens=9) as models:
        yield replace(models, sleep=lambda _: None)


def write(server: ModelServer, asked: dict[str, Question], model: str = "base", **options: Any) -> dict[str, Answer]:
    temperature = options.pop("temperature", None)
    with opened(server, **options) as models:
        return {key: each for batch in models.write(model, asked, temperature) for key, each in batch.items()}


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    return str(tmp_path)


def test_every_question_is_asked_as_the_product_asks(server: ModelServer) -> None:
    server.say = lambda body: body["messages"][0]["content"].upper()
    answers = write(server, questions(20), concurrent_requests=3)
    assert answers == {f"key-{n}": Answer(f"# ASK {n}\n", ended=True) for n in range(20)}
    assert server.most_at_once <= 3
    body = next(each for each in server.list_asked("chat/completions") if each["messages"][0]["content"] == "# ask 7\n")
    assert {name: body[name] for name in ("model", "max_tokens", "temperature", "top_p", "stream")} == {
        "model": "base",
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 1.0,
        "stream": False,
    }
    assert "tools" not in body
    assert "chat_template_kwargs" not in body


def test_samples_have_the_serving_temperature_and_a_seed_of_their_own(server: ModelServer) -> None:
    for number in (0, 1, 1):
        write(server, questions(1, sample=number), temperature=0.7)
    first, second, third = server.list_asked("chat/completions")
    assert (first["temperature"], second["temperature"]) == (0.7, 0.7)
    assert first["seed"] != second["seed"] == third["seed"]


def test_messages_tools_and_template_variables_go_along(server: ModelServer) -> None:
    asked = questions(1, prompt_format="messages", tools=TOOLS)
    asked = {key: replace(each, row=msgspec.structs.replace(each.row, prompt=MESSAGES)) for key, each in asked.items()}
    write(server, asked, rendering=Rendering(chat_template_kwargs={"enable_thinking": False}))
    [body] = server.list_asked("chat/completions")
    assert [each["role"] for each in body["messages"]] == ["system", "user", "assistant", "tool"]
    call = body["messages"][2]["tool_calls"][0]
    assert call == {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "Bonn"}'}}
    assert body["tools"] == json.loads(TOOLS)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("options", [{"is_chat": False}, {"rendering": Rendering(wrap_text_prompts=False)}])
def test_a_prompt_that_no_template_wraps_goes_as_token_ids(server: ModelServer, options: dict[str, Any]) -> None:
    assert write(server, questions(), **options) == {"key-0": Answer("said", ended=True)}
    [body] = server.list_asked("completions")
    assert body["prompt"] == TARGET.prompt
    assert not server.list_asked("chat/completions")


def test_an_answer_that_was_cut_off_has_no_end(server: ModelServer) -> None:
    server.finish_reason = "length"
    assert write(server, questions()) == {"key-0": Answer("said", ended=False)}


def test_reasoning_is_no_part_of_an_answer_and_a_call_is_read_as_people_see_it(server: ModelServer) -> None:
    server.say = lambda body: "<think>\nhm\n</think>\n\nyes"
    assert write(server, questions()) == {"key-0": Answer("yes", ended=True)}
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "Bonn"}'}}
    message = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
    choice = {"finish_reason": "tool_calls", "message": message}
    server.faults = [json.dumps({"model": "base", "choices": [choice]}).encode()]
    seen = '{"name": "look", "arguments": {"at": "Bonn"}}'
    assert write(server, questions()) == {"key-0": Answer(seen, ended=True)}


def test_a_busy_broken_or_cut_server_is_asked_again_after_the_pause_it_wants(server: ModelServer) -> None:
    server.faults = [429, 500, "cut", b"{}", 503]
    pauses: list[float] = []
    with opened(server, attempts=6) as models:
        patient = replace(models, sleep=pauses.append)
        assert list(patient.write("base", questions(), None)) == [{"key-0": Answer("said", ended=True)}]
    assert pauses == [7.0, 2.0, 4.0, 8.0, 16.0]
    assert len(server.list_asked("chat/completions")) == 6


@pytest.mark.parametrize("fault", [429, 500, "cut", b'{"choices": []}', b"not json"])
def test_a_server_that_stays_away_is_a_transient_failure(server: ModelServer, fault: Any) -> None:
    server.faults = [fault] * 3
    with pytest.raises(ModelServerUnavailableError, match=r"chat/completions: .* after 3 attempts. .* run again"):
        write(server, questions(), attempts=3)
    assert ModelServerUnavailableError.is_transient


def test_an_answer_that_was_given_up_is_asked_for_again(server: ModelServer) -> None:
    """vLLM says "abort" where it is stopped in the middle: half a text is no answer of the model."""
    server.finish_reason = "abort"
    with pytest.raises(ModelServerUnavailableError, match=r"given up \(finish_reason 'abort'\), after 2 attempts"):
        write(server, questions(), attempts=2)


def test_no_server_at_all_is_a_transient_failure() -> None:
    with serve() as server:
        pass
    with pytest.raises(ModelServerUnavailableError, match="not reached"):
        write(server, questions(), attempts=2)


@pytest.mark.parametrize("status", [302, 400, 401, 422])
def test_a_refusal_is_permanent_and_asked_for_once(server: ModelServer, status: int) -> None:
    server.faults = [status]
    with pytest.raises(SettingsError, match=f"answered with status {status}. Check GenerationServer's url"):
        write(server, questions())
    assert len(server.list_asked("chat/completions")) == 1


def test_what_came_before_a_failure_is_yielded(server: ModelServer) -> None:
    """So a run that is tried again goes on from it."""
    asked = questions(5)
    came: dict[str, Answer] = {}
    server.faults = [None, None, 500]
    with opened(server, attempts=1, concurrent_requests=1) as models, pytest.raises(ModelServerUnavailableError):
        _collect(models, asked, came)
    assert {"key-0", "key-1"} <= came.keys() < asked.keys()


def _collect(models: ServedModels, asked: dict[str, Question], came: dict[str, Answer]) -> None:
    for batch in models.write("base", asked, None):
        came |= batch


def test_the_key_comes_from_a_file(server: ModelServer, tmp_path: Path) -> None:
    server.key = "secret"
    (tmp_path / "key").write_text("secret\n")
    assert write(server, questions(), key_file=str(tmp_path / "key")) == {"key-0": Answer("said", ended=True)}
    with pytest.raises(SettingsError, match=r"status 401.*FLYWHEEL_MODEL_SERVER_KEY_FILE") as refused:
        write(server, questions())
    assert "secret" not in str(refused.value)
    with pytest.raises(SettingsError, match=r"FLYWHEEL_MODEL_SERVER_KEY_FILE is .*nowhere, which cannot be read"):
        write(server, questions(), key_file=str(tmp_path / "nowhere"))


def test_adapters_are_loaded_under_names_of_their_own_and_unloaded(server: ModelServer, adapter: str) -> None:
    with opened(server) as models, models.load({"a" * 64: adapter, "b" * 64: adapter}, {}, "evaluation") as names:
        assert names[None] == "base"
        assert len(set(names.values())) == 3
        assert set(names.values()) == set(server.names)
        assert list(models.write(names["a" * 64], questions(), None)) == [{"key-0": Answer("said", ended=True)}]
    assert set(server.names) == {"base"}


def test_an_adapter_that_a_killed_evaluation_loaded_is_used_again(server: ModelServer, adapter: str) -> None:
    with opened(server) as models:
        with models.load({"a" * 64: adapter}, {}, "evaluation") as names:
            loaded = dict(server.names)
        server.names = loaded
        with models.load({"a" * 64: adapter}, {}, "evaluation") as again:
            assert again == names
    assert len(server.list_asked("load_lora_adapter")) == 1


def test_a_named_adapter_is_neither_loaded_nor_unloaded(server: ModelServer, adapter: str) -> None:
    server.names["assistant-v3"] = "base"
    with opened(server) as models, models.load({"a" * 64: adapter}, {"a" * 64: "assistant-v3"}, "evaluation") as names:
        assert names == {None: "base", "a" * 64: "assistant-v3"}
    assert not server.asked
    assert "assistant-v3" in server.names


def test_a_wrong_name_is_permanent_and_lists_what_is_served(server: ModelServer, adapter: str) -> None:
    with (
        pytest.raises(SettingsError, match=r"serves no model 'llama'; it serves base\. Correct .*base_model"),
        opened(server, base_model="llama") as models,
        models.load({}, {}, "evaluation"),
    ):
        pass
    with (
        pytest.raises(SettingsError, match="serves no model 'assistant-v3'"),
        opened(server) as models,
        models.load({"a" * 64: adapter}, {"a" * 64: "assistant-v3"}, "evaluation"),
    ):
        pass
    with pytest.raises(SettingsError, match="status 404"):
        write(server, questions(), model="assistant-v3")


def test_an_adapter_of_another_base_is_refused(server: ModelServer, adapter: str) -> None:
    server.names["assistant-v3"] = "other-base"
    with (
        pytest.raises(SettingsError, match="serves 'assistant-v3' as an adapter of 'other-base', not of 'base'"),
        opened(server) as models,
        models.load({"a" * 64: adapter}, {"a" * 64: "assistant-v3"}, "evaluation"),
    ):
        pass


def test_a_server_that_loads_no_adapters_says_how_it_would(server: ModelServer, adapter: str) -> None:
    server.loads_adapters = False
    with (
        pytest.raises(SettingsError, match=r"status 404.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.*model_names"),
        opened(server) as models,
        models.load({"a" * 64: adapter}, {}, "evaluation"),
    ):
        pass


def test_a_server_that_answers_with_another_model_is_refused(server: ModelServer) -> None:
    """One that does not know a name may quietly answer with its base: the challenger would be the base's twin."""
    server.answers_as = "base-instruct"
    with pytest.raises(SettingsError, match="'base' was asked, and 'base-instruct' answered"):
        write(server, questions())


def test_a_server_without_models_says_so(server: ModelServer) -> None:
    server.names = {}
    with (
        pytest.raises(SettingsError, match="it serves none"),
        opened(server) as models,
        models.load({}, {}, "evaluation"),
    ):
        pass
