"""The options of an evaluation: refused at load with their name, by device, and with the recipe's temperature."""

from dataclasses import replace
from datetime import date
from typing import Any

import msgspec
import pytest

from flywheel_assets.application import PreferenceApplication
from flywheel_assets.errors import SettingsError
from flywheel_assets.evaluation.options import EvaluationOptions, GenerationServer
from flywheel_assets.models.process_failures import advise_on_memory

HERE = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"device": "gpu"}, "EvaluationOptions.device"),
        ({"cpu_threads": 0}, "EvaluationOptions.cpu_threads"),
        ({"generation_rows_per_batch": 0}, "EvaluationOptions.generation_rows_per_batch"),
        ({"generation_tokens_per_batch": 0}, "EvaluationOptions.generation_tokens_per_batch"),
        ({"scoring_rows_per_batch": 1.5}, "EvaluationOptions.scoring_rows_per_batch"),
        ({"scoring_tokens_per_batch": -1}, "EvaluationOptions.scoring_tokens_per_batch"),
        ({"max_rows": 0}, "EvaluationOptions.max_rows"),
        ({"max_new_tokens": 0}, "EvaluationOptions.max_new_tokens"),
        ({"serving_temperature": 0.0}, "EvaluationOptions.serving_temperature"),
        ({"samples": -1}, "EvaluationOptions.samples"),
        ({"max_sampled_rows": -1}, "EvaluationOptions.max_sampled_rows"),
    ],
)
def test_impossible_options_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        EvaluationOptions(**changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"url": "127.0.0.1:8000"}, r"GenerationServer.url is .* need an http\(s\) URL"),
        ({"url": "https://models.example/v1"}, "url is .* add it to allowed_hosts if that is meant"),
        (
            {"url": "http://models.example/v1", "allowed_hosts": frozenset(["models.example"])},
            "url is .* need https: it would send user text unencrypted",
        ),
        ({"base_model": ""}, "base_model"),
        ({"model_names": {"candidate": "x"}}, 'model_names is .*candidate.*; need "sft", "champion"'),
        ({"model_names": {"champion": ""}}, r"model_names\['champion'\]"),
        ({"concurrent_requests": 0}, "concurrent_requests"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_impossible_servers_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        GenerationServer(**{"url": HERE, "base_model": "base", **changes})


def test_an_allowed_host_by_https_is_taken() -> None:
    hosts = frozenset(["models.example"])
    GenerationServer(url="https://models.example/v1", base_model="base", allowed_hosts=hosts)


def test_an_application_has_them_and_the_recipes_temperature_counts_unless_they_name_one() -> None:
    application = PreferenceApplication(
        name="assistant", description="An assistant.", start_date=date(2026, 1, 1), base_model="base"
    )
    assert application.evaluation == EvaluationOptions()
    assert application.evaluation.resolve_temperature(1.1).temperature == 1.1
    assert EvaluationOptions(serving_temperature=0.3).resolve_temperature(1.1).temperature == 0.3
    assert EvaluationOptions().temperature == 0.7


def test_batches_follow_the_device_unless_they_are_named() -> None:
    options = EvaluationOptions()
    assert (options.count_generation_rows("cpu"), options.count_generation_rows("cuda")) == (32, 128)
    assert (options.count_scoring_rows("cpu"), options.count_scoring_rows("cuda")) == (8, 64)
    named = replace(options, generation_rows_per_batch=3, scoring_rows_per_batch=2)
    assert (named.count_generation_rows("cuda"), named.count_scoring_rows("cpu")) == (3, 2)


def test_they_survive_json_and_are_checked_on_the_way_back() -> None:
    options = EvaluationOptions(max_rows=None, server=GenerationServer(url=HERE, base_model="base"))
    encoded = msgspec.json.encode(options)
    assert msgspec.json.decode(encoded, type=EvaluationOptions) == options
    with pytest.raises(SettingsError, match=r"EvaluationOptions\.samples is -4"):
        msgspec.json.decode(encoded.replace(b'"samples":4', b'"samples":-4'), type=EvaluationOptions)


def test_an_evaluation_without_memory_names_its_own_options() -> None:
    """The advice named the recipe's batch, which no evaluation reads."""

    class Request:
        options = EvaluationOptions(generation_tokens_per_batch=1000)
        rendering = None

    assert "`generation_tokens_per_batch` (now 1,000) and `scoring_tokens_per_batch` (now 16,384)" in advise_on_memory(
        Request()
    )
