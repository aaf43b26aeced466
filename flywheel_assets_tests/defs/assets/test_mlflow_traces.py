"""Traces of a real MLflow server reach the landing zone, and what people expected becomes pairs."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from flywheel_assets.application import MlflowTraceSource, PreferenceApplication
from flywheel_assets.defs.flywheels import preference_flywheel
from flywheel_assets.defs.resources import Clock, Stores
from flywheel_assets.errors import SettingsError, SourceUnavailableError, UnknownNameError
from flywheel_assets.lake.tables.specs import CURATED_DPO_PAIRS
from flywheel_assets.models.mlflow_traces import MlflowTraces
from flywheel_assets_tests.capture.samples import landed
from flywheel_assets_tests.mlflow_server import EXPERIMENT, TracedApplication, mlflow_server

QUESTION = "My parcel has not arrived after two weeks, what can I do about it?"
ANSWER = "Please wait a few more days, most parcels arrive in the end."
BETTER = "I am sorry about the delay. I have asked the carrier to trace the parcel and will write to you tomorrow."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(scope="module")
def traced(server: str) -> Iterator[TracedApplication]:
    with TracedApplication(server) as application:
        yield application


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def configure(uri: str, start: date = date(2026, 9, 1), **changes: Any) -> PreferenceApplication:
    source = MlflowTraceSource(experiment=EXPERIMENT, tracking_uri=uri, **changes)
    return PreferenceApplication(
        name="assistant", description="test", start_date=start, base_model="base", sources=(source,)
    )


def read_source(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Mapping[str, Any]:
    """Run the source's own job; return the figures that the UI shows."""
    result = definitions.resolve_job_def("assistant_mlflow_traces").execute_in_process(instance=instance)
    (materialization,) = result.asset_materializations_for_node("assistant__mlflow_traces")
    return {name: value.value for name, value in materialization.metadata.items()}


@pytest.mark.slow
def test_traces_and_later_assessments_become_events_and_pairs(
    tmp_path: Path, server: str, traced: TracedApplication, instance: dg.DagsterInstance
) -> None:
    first, second = traced.chat(QUESTION, ANSWER), traced.chat("And when it is lost?", "Then we refund it.")
    traced.expect(first, BETTER)
    now = datetime.now(UTC) + timedelta(minutes=1)
    application = configure(server, now.date(), since=now.date() - timedelta(days=1))
    definitions = preference_flywheel(application, Stores(home=str(tmp_path)), Clock(fixed=now.isoformat()))
    figures = read_source(definitions, instance)
    assert (figures["traces_read"], figures["predictions"], figures["feedback"]) == (2, 2, 1)
    assert figures["is_complete"]
    assert BETTER not in str(figures)
    landing = tmp_path / "landing"
    assert {row["source"] for kind in ("prediction", "feedback") for row in landed(landing, kind)} == {"mlflow"}

    # Nothing has changed: nothing is read, and nothing lands.
    figures = read_source(definitions, instance)
    assert (figures["traces_in_window"], figures["traces_read"], figures["predictions"]) == (2, 0, 0)

    # A verdict on an older trace: only that trace is read again, and its prediction is a duplicate by its id.
    traced.rate(second, False)
    figures = read_source(definitions, instance)
    assert (figures["traces_read"], figures["feedback"]) == (1, 1)
    predictions, feedback = landed(landing, "prediction"), landed(landing, "feedback")
    assert len({row["event_id"] for row in predictions}) == 2
    assert sorted(row["signal"] for row in feedback) == ["edit", "thumb"]
    assert {row["prediction_id"] for row in feedback} == {row["prediction_id"] for row in predictions}

    day = now.date()
    job = definitions.resolve_job_def("assistant_daily")
    assert job.execute_in_process(instance=instance, partition_key=day.isoformat()).success
    pairs = {pair["rejected"]: pair["chosen"] for pair in read_pairs(Stores(home=str(tmp_path)), day)}
    assert pairs[ANSWER] == BETTER


def read_pairs(stores: Stores, day: date) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = stores.lake("assistant").read(CURATED_DPO_PAIRS, [day]).to_pylist()
    return rows


@pytest.mark.slow
def test_an_unknown_experiment_lists_the_known_ones(server: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown MLflow experiment 'suport'; known: Default"):
        next(MlflowTraces(server, "suport").list_pages(datetime(2026, 1, 1, tzinfo=UTC)))


def test_a_server_that_does_not_answer_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SourceUnavailableError, match="MLflow does not answer"):
        next(MlflowTraces("http://127.0.0.1:9", EXPERIMENT).list_pages(datetime(2026, 1, 1, tzinfo=UTC)))


# Configuration -------------------------------------------------------------------------------------------------------


def test_a_source_has_an_asset_a_job_and_a_schedule() -> None:
    application = configure("http://127.0.0.1:9", every_minutes=10)
    definitions = preference_flywheel(application)
    dg.Definitions.validate_loadable(definitions)
    schedule = definitions.resolve_schedule_def("assistant_mlflow_traces_schedule")
    assert schedule.cron_schedule == "*/10 * * * *"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    graph = definitions.resolve_asset_graph()
    node = graph.get(dg.AssetKey(["assistant", "mlflow_traces"]))
    # Days take up what has landed, whenever it landed: they wait for no source.
    assert (node.partitions_def, node.parent_keys, node.child_keys) == (None, set(), set())


def test_a_password_in_the_address_is_refused_and_not_quoted() -> None:
    with pytest.raises(SettingsError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as caught:
        configure("https://ann:SECRET@mlflow.example.org")
    assert "SECRET" not in str(caught.value)


def test_two_sources_of_one_name_are_refused() -> None:
    source = MlflowTraceSource(experiment="a")
    with pytest.raises(SettingsError, match="a `name` of its own for each source"):
        PreferenceApplication(
            name="assistant", description="test", start_date=date(2026, 9, 1), base_model="b", sources=(source, source)
        )
