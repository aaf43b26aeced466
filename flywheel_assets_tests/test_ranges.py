"""Every value that a team configures is held to the range of its annotation, and refused by one kind of error."""

import math
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import date
from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any, Literal

import annotated_types
import pytest

import flywheel_assets
from flywheel_assets.application import ClassificationApplication, ExampleTrigger, FlywheelApplication
from flywheel_assets.curation.joining import JoinWindow
from flywheel_assets.curation.labels.mining import MiningRules
from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract
from flywheel_assets.errors import SettingsError
from flywheel_assets.ranges import (
    Checked,
    Count,
    CountOrZero,
    Name,
    NotNegative,
    Positive,
    PositiveShare,
    Share,
    ShareBelowOne,
)
from flywheel_assets.settings import Settings, read_settings


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class EveryRange(Checked):
    count: Count = 1
    count_or_zero: CountOrZero = 0
    positive: Positive = 0.1
    not_negative: NotNegative = 0.0
    share: Share = 0.5
    positive_share: PositiveShare = 0.5
    share_below_one: ShareBelowOne = 0.5
    optional: Share | None = None
    name: Name = "a"
    odd: Annotated[int, annotated_types.Gt(2), annotated_types.Lt(9)] = 3
    chosen: Literal["auto", "cpu"] = "auto"
    is_on: bool = False
    words: str | tuple[str, ...] = "all"
    rates: Mapping[str, NotNegative] = field(default_factory=dict)
    colours: Mapping[str, Colour] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("count", 0, r"EveryRange\.count is 0; need at least 1\. .*leave it out for 1\."),
        ("count", True, "count is True; need a whole number, at least 1"),
        ("count", 1.0, r"count is 1\.0; need a whole number, at least 1"),
        ("count_or_zero", -1, "need at least 0"),
        ("positive", 0, "positive is 0; need more than 0"),
        ("positive", math.inf, "positive is inf; need a finite number, more than 0"),
        ("not_negative", math.nan, "not_negative is nan; need a finite number"),
        ("share", 1.5, r"share is 1\.5; need 0 to 1"),
        ("share", "0.5", r"share is '0\.5'; need a finite number, 0 to 1"),
        ("share", None, "share is None; need a finite number, 0 to 1"),
        ("positive_share", 0.0, "need more than 0, at most 1"),
        ("share_below_one", 1, "need at least 0, less than 1"),
        ("optional", 2, "optional is 2; need 0 to 1, or None"),
        ("name", "", "name is ''; need at least one"),
        ("odd", 9, "odd is 9; need more than 2, less than 9"),
        ("chosen", "gpu", "chosen is 'gpu'; need one of 'auto', 'cpu'"),
        ("is_on", 1, "is_on is 1; need True or False"),
        ("words", 7, "words is 7; need a text"),
        ("rates", {"travel": -1}, r"rates\['travel'\] is -1; need at least 0"),
        ("colours", {"sky": "blue"}, r"colours\['sky'\] is 'blue'; need one of Colour\.RED, Colour\.BLUE"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_is_valid(name: str, value: Any, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        EveryRange(**{name: value})
    with pytest.raises(SettingsError, match=complaint):
        replace(EveryRange(), **{name: value})


def test_ends_of_ranges_are_within() -> None:
    ends = EveryRange(share=1, optional=0.0, positive_share=1.0, share_below_one=0, odd=8, words=("a", "b"))
    assert replace(ends, share=0).share == 0
    assert asdict(EveryRange())["share"] == 0.5
    assert EveryRange() == EveryRange()


def test_a_bound_that_is_not_checked_cannot_be_written() -> None:
    @dataclass(frozen=True)
    class Misread(Checked):
        even: Annotated[int, annotated_types.MultipleOf(2)] = 3

    with pytest.raises(TypeError, match="MultipleOf"):
        Misread()


def configured() -> Iterator[type]:
    # Not the demos: the entry of one runs when it is imported.
    for module in pkgutil.walk_packages(flywheel_assets.__path__, "flywheel_assets."):
        if not module.name.startswith(("flywheel_assets.demo", "flywheel_assets.defs", "flywheel_assets.cli")):
            import_module(module.name)
    found = [Checked]
    for kind in found:
        found.extend(kind.__subclasses__())
    return (kind for kind in found if is_dataclass(kind) and kind.__module__.startswith("flywheel_assets."))


def test_every_number_that_a_team_configures_has_a_range() -> None:
    """A bare `int` or `float` would be held to its type only; seeds alone may be any whole number."""
    unbounded = {
        f"{kind.__name__}.{each.name}"
        for kind in configured()
        for each in fields(kind)
        if each.type in (int, float) and each.name != "seed"
    }
    assert not unbounded


def test_every_rules_class_of_an_application_is_checked() -> None:
    def parts(kind: type) -> Iterator[type]:
        for each in fields(kind):  # type: ignore[arg-type]
            if isinstance(each.type, type) and is_dataclass(each.type):
                yield each.type
                yield from parts(each.type)

    found = {part for kind in FlywheelApplication.__subclasses__() for part in parts(kind)}
    assert len(found) > 15
    # It holds no number: a chain of checks that are checked themselves.
    assert {kind.__name__ for kind in found if not issubclass(kind, Checked)} == {"Policy"}


def test_a_setting_out_of_its_range_is_the_same_error_and_tells_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYWHEEL_CAPTURE_PORT", "70000")
    monkeypatch.setenv("FLYWHEEL_CAPTURE_EVENT_BYTES", "secret")
    read_settings.cache_clear()
    try:
        with pytest.raises(SettingsError, match=r"FLYWHEEL_CAPTURE_PORT: .*; FLYWHEEL_CAPTURE_EVENT_BYTES: ") as error:
            read_settings()
    finally:
        read_settings.cache_clear()
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None
    assert Settings.model_fields


CLASSIFIER = ClassificationApplication(
    name="fraud",
    description="Card fraud.",
    start_date=date(2026, 3, 1),
    contract=ScoreContract(features={"amount": FeatureType.NUMBER}),
)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"threshold": math.nan}, "threshold is nan; need a finite number, 0 to 1, or None"),
        ({"threshold": 50}, "threshold is 50; need 0 to 1, or None"),
        ({"threshold": -1}, "threshold is -1; need 0 to 1, or None"),
        ({"threshold": "0.5"}, r"threshold is '0\.5'; need a finite number"),
        ({"cards_per_day": 0}, "cards_per_day is 0; need at least 1"),
        ({"evaluation_weeks": 0}, "evaluation_weeks is 0; need at least 1"),
        ({"evaluation_weeks": 1}, r"evaluation_weeks is 1; need at least limits\.min_weeks, here 2"),
        ({"mining": MiningRules(maturity_days=181)}, r"mining\.maturity_days is 181; need at most window\.join_days"),
        (
            {"mining": MiningRules(maturity_days=60), "window": JoinWindow(join_days=30)},
            r"maturity_days is 60; need at most window\.join_days, here 30",
        ),
    ],
)
def test_a_classifiers_settings_that_could_never_work_are_refused_when_they_are_loaded(
    changes: dict[str, Any], complaint: str
) -> None:
    """A threshold of 50 made 0 alerts of both models, so that the alert check passed for ever."""
    with pytest.raises(SettingsError, match=complaint):
        replace(CLASSIFIER, **changes)


def test_ends_that_contradict_each_other_are_refused_when_they_are_loaded() -> None:
    with pytest.raises(SettingsError, match=r"min_calibration_ratio is 1\.25; need at most max_calibration_ratio"):
        ExampleTrigger(min_calibration_ratio=1.25, max_calibration_ratio=0.8)


@pytest.mark.parametrize("kind", ["number", "nummer", float])
def test_a_type_of_feature_that_is_none_is_refused_when_it_is_loaded(kind: Any) -> None:
    with pytest.raises(SettingsError, match=r"features\['amount'\] is .*; need one of FeatureType\.NUMBER"):
        ScoreContract(features={"amount": kind})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"features_since": {"risk": date(2026, 10, 1)}}, "features_since is 'risk'; need one of features: amount"),
        ({"features_since": {"amount": "2026-10-01"}}, r"features_since\['amount'\] is '2026-10-01'; need a day"),
        ({"retired_features": {"amount": FeatureType.NUMBER}}, "retired_features is .*; need none of features: amount"),
        ({"retired_features": {"risk": "number"}}, r"retired_features\['risk'\] is 'number'; need one of FeatureType"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused_when_it_is_loaded(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        ScoreContract(features={"amount": FeatureType.NUMBER}, **changes)


def test_an_empty_key_is_refused_when_it_is_loaded() -> None:
    with pytest.raises(SettingsError, match=r"FieldMapping\.key is ''"):
        FieldMapping(key="")


def test_labels_of_a_classifier_join_for_180_days_where_nothing_else_is_said() -> None:
    """A label 35 days after its prediction was lost by the window of texts, 30 days, and stayed a negative."""
    assert CLASSIFIER.window.join_days == 180
    assert JoinWindow().join_days == 30
