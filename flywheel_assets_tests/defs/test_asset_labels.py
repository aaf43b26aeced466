"""Owners, tags, kinds, column descriptions and freshness, as the UI shows them."""

from dataclasses import replace

import dagster as dg
import pytest

from flywheel_assets.applications import assistant, fraud
from flywheel_assets.defs.flywheels import classification_flywheel, preference_flywheel
from flywheel_assets.errors import SettingsError

OWNERS = ("team:payments", "ada@example.com")
TAGS = {"domain": "payments", "acme.io/tier": "2"}


@pytest.fixture(scope="module")
def nodes():
    """Every asset of both kinds of application, with owners and tags."""
    labelled = {"owners": OWNERS, "tags": TAGS}
    both = [
        preference_flywheel(replace(assistant.APPLICATION, **labelled)),
        classification_flywheel(replace(fraud.APPLICATION, **labelled)),
    ]
    graphs = [definitions.resolve_asset_graph() for definitions in both]
    return [graph.get(key) for graph in graphs for key in graph.get_all_asset_keys()]


def is_made_daily(node) -> bool:
    """Landing has days as well, but capture makes them, and they hold lines rather than columns."""
    return isinstance(node.partitions_def, dg.TimeWindowPartitionsDefinition) and node.is_materializable


def test_every_asset_has_the_owners_and_tags_of_its_application_and_a_kind(nodes) -> None:
    for node in nodes:
        assert tuple(node.owners) == OWNERS, node.key
        assert TAGS.items() <= node.tags.items(), node.key
        assert node.kinds, node.key


def test_every_column_of_a_daily_asset_is_described(nodes) -> None:
    daily = [node for node in nodes if is_made_daily(node)]
    assert len(daily) == 10
    for node in daily:
        columns = node.metadata["dagster/column_schema"].columns
        assert [column.name for column in columns if not column.description] == [], node.key


def test_daily_assets_are_late_when_nothing_was_materialized_by_six(nodes) -> None:
    for node in nodes:
        is_daily = is_made_daily(node)
        assert (node.freshness_policy is not None) == is_daily, node.key
        if is_daily:
            assert node.freshness_policy.deadline_cron == "0 6 * * *"


@pytest.mark.parametrize(
    "owner",
    ["team:payments", "ada@example.com", "a.b+c@x-y.co", "team:", "payments", "ada@example", "", "@x.de", "team: a b"],
)
def test_owners_are_accepted_as_dagster_accepts_them(owner: str) -> None:
    try:
        dg.AssetSpec("asset", owners=[owner])
    except dg.DagsterInvalidDefinitionError:
        with pytest.raises(SettingsError, match="an e-mail address or a team, as in "):
            replace(assistant.APPLICATION, owners=(owner,))
    else:
        replace(assistant.APPLICATION, owners=(owner,))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("domain", "payments"),
        ("acme.io/tier", "2"),
        ("domain", ""),
        ("", "payments"),
        ("a/b/c", "x"),
        ("domain", "card payments"),
        ("do main", "x"),
        ("k" * 63, "v" * 63),
        ("k" * 64, "v"),
        ("k", "v" * 64),
    ],
)
def test_tags_are_accepted_as_dagster_accepts_them(key: str, value: str) -> None:
    try:
        dg.AssetSpec("asset", tags={key: value})
    except dg.DagsterInvalidDefinitionError:
        with pytest.raises(SettingsError, match="at most 63 letters, digits, "):
            replace(assistant.APPLICATION, tags={key: value})
    else:
        replace(assistant.APPLICATION, tags={key: value})


@pytest.mark.parametrize("definitions", [assistant.defs, fraud.defs])
def test_every_launchpad_can_be_launched_as_it_stands(definitions: dg.Definitions) -> None:
    for job in definitions.resolve_all_job_defs():
        dg.validate_run_config(job, {})
        assert job.description or job.name == "__ASSET_JOB", job.name
