"""Reads the fields of a team's own JSON as its application's `FieldMapping` declares them."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from flywheel_assets.curation.labels.score_contract import FeatureType, FieldMapping, ScoreContract, name_json_type
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.wire import LONGEST_IDENTIFIER, shorten_message

_MILLISECONDS_FROM = 1e11  # in seconds this would be the year 5138
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False, "1.0": True, "0.0": False}
_GAPS = frozenset({"nan", "na", "n/a", "null", "none"})
"""Words, in lower case, by which pandas, R and SQL clients write a missing number into a table."""


class Document:
    """Reads values by dotted paths; each error names the path as the team calls it."""

    __slots__ = ("contract", "mapping", "values")

    def __init__(self, values: Mapping[str, Any], contract: ScoreContract) -> None:
        self.values = values
        self.contract = contract
        self.mapping: FieldMapping = contract.mapping

    def find(self, path: str) -> Any:
        """Return the value at a path; None where it is absent, null, NaN, or an empty text of a table."""
        value: Any = self.values
        for name in _split(path):
            # Most are dictionaries: asking for the abstract type costs ten times as much.
            value = value.get(name) if type(value) is dict or isinstance(value, Mapping) else None
        if value is None or (type(value) is str and value):
            return value
        return None if self._is_missing(value) else value

    def has(self, path: str) -> bool:
        """Return whether a path is there, with any value."""
        value: Any = self.values
        for name in _split(path):
            if not isinstance(value, Mapping) or name not in value:
                return False
            value = value[name]
        return True

    def require(self, path: str) -> Any:
        """Return the value at a path; raise where it is absent or null."""
        value = self.find(path)
        if value is None:
            raise InvalidEventError(f"`{path}` is missing; the application's field mapping says that it is there")
        return value

    def read_id(self, path: str) -> str | None:
        """Return the id at a path, a text or a whole number."""
        value = self.find(path)
        if value is None or (type(value) is str and 1 <= len(value) <= LONGEST_IDENTIFIER):
            return value
        text = write_id(value)
        if text is None:
            raise InvalidEventError(f"`{path}` is a {name_json_type(value)}; valid: a text or a whole number")
        if not 1 <= len(text) <= LONGEST_IDENTIFIER:
            raise InvalidEventError(f"`{path}` has {len(text)} characters; valid: 1 to {LONGEST_IDENTIFIER}")
        return text

    def require_id(self, path: str) -> str:
        """Return the id at a path; raise where it is absent or null."""
        self.require(path)
        found = self.read_id(path)
        assert found is not None
        return found

    def has_number(self, path: str) -> bool:
        """Return whether a number is given: neither null nor a word for a missing value."""
        return not self._is_gap(self.find(path))

    def read_number(self, path: str) -> float | None:
        """Return the number at a path."""
        value = self.find(path)
        if type(value) is float and math.isfinite(value):
            return value
        if self._is_gap(value):
            return None
        number = self._parse_number(value)
        if number is None:
            raise InvalidEventError(self._describe_no_number(path, value))
        return number

    def read_share(self, path: str, scale: float = 1.0, is_zero_valid: bool = True) -> float | None:
        """Return the number at a path, divided by a scale, from 0 to 1."""
        number = self.read_number(path)
        if number is None:
            return None
        if not 0 <= number <= scale or (number == 0 and not is_zero_valid):
            least = "0" if is_zero_valid else "more than 0"
            # In a table of percentages most scores are between these.
            is_percentage = path == self.mapping.score and scale == 1 and 1 < number <= 100
            hint = "; where scores are percentages, declare FieldMapping(score_scale=100)" if is_percentage else ""
            raise InvalidEventError(f"`{path}` is {number:g}; valid: {least} to {scale:g}{hint}")
        return number / scale

    def read_scores(self, path: str, scale: float = 1.0) -> dict[str, float]:
        """Return the object of the classes' probabilities at a path, each divided by a scale."""
        found = self.require(path)
        if not isinstance(found, Mapping):
            valid = "an object with the probability of every class"
            raise InvalidEventError(f"`{path}` is a {name_json_type(found)}; valid: {valid}")
        scores = {}
        for name, value in found.items():
            number = self._parse_number(value)
            if number is None:
                raise InvalidEventError(self._describe_no_number(f"{path}.{name}", value))
            scores[str(name)] = number / scale
        return scores

    def read_boolean(self, path: str) -> bool:
        """Return the boolean at a path; False where it is absent or null."""
        value = self.find(path)
        if value is None or isinstance(value, bool):
            return bool(value)
        found = self._parse_boolean(value)
        if isinstance(found, bool):
            return found
        raise InvalidEventError(f"`{path}` is a {name_json_type(value)}; valid: a boolean")

    def read_time(self, path: str) -> datetime | None:
        """Return the time at a path, with a zone."""
        value = self.find(path)
        if value is None:
            return None
        if isinstance(value, datetime):
            return self._place(value, path)
        if isinstance(value, str):
            # A declared pattern decides: 20260301 may be a day as well as a number of seconds.
            number = self._parse_number(value) if self.mapping.time_format is None else None
            if number is None:
                return self._parse_text_time(value, path)
            value = number
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidEventError(f"`{path}` is a {name_json_type(value)}; valid: a time as text or number")
        try:
            return datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS_FROM else value, UTC)
        except (OverflowError, OSError, ValueError):
            raise InvalidEventError(f"`{path}` is {value:g}; valid: seconds or milliseconds since 1970") from None

    def read_label(self, path: str) -> str:
        """Return the contract's word for the label at a path."""
        value = self.require(path)
        label = self._find_label(value)
        if label is None:
            valid = ", ".join(
                dict.fromkeys(
                    (
                        *self.contract.label_words,
                        *self.mapping.positive_words,
                        *self.mapping.negative_words,
                    )
                )
            )
            declared = "negative_words=…" if self.contract.classes else "positive_words=…, negative_words=…"
            raise InvalidEventError(
                f"`{path}` is {str(value)[:80]!r}; valid: {valid}; declare other words with FieldMapping({declared})"
            )
        return label

    def has_label(self, path: str) -> bool:
        """Return whether a label is given: neither null nor a word for a missing value."""
        value = self.find(path)
        return value not in (None, "") and (self._find_label(value) is not None or not self._is_gap(value))

    def _find_label(self, value: Any) -> str | None:
        word = str(value).lower() if isinstance(value, bool) else write_id(value)
        label = None if word is None else self.contract.read_label(word)
        if label is None and isinstance(value, str):  # tables hold integers with gaps as 1.0
            word = write_id(self._parse_number(value))
            label = None if word is None else self.contract.read_label(word)
        return label

    def read_features(self) -> dict[str, Any]:
        """Return the features with the types that the contract declares, undeclared ones as they are."""
        path = self.mapping.features
        if path:
            found = self.find(path)
            if found is None and any(self.has(name) for name in self.contract.logged_features):
                raise InvalidEventError(
                    f"`{path}` is missing, but features stand on their own; declare FieldMapping(features=None)"
                )
            found = self.require(path)
            if not isinstance(found, Mapping):
                raise InvalidEventError(f"`{path}` is a {name_json_type(found)}; valid: an object of features")
            features = dict(found)
        else:
            features = {}
            for name in self.contract.logged_features:
                if name in self.values:
                    features[name] = self.values[name]
                elif self.has(name):
                    features[name] = self.find(name)
        usual = self.contract.usual_types
        for name, value in features.items():
            # Nearly every value has its declared type: what follows is for the others.
            if value is None or (type(value) is usual.get(name) and (type(value) is not float or math.isfinite(value))):
                continue
            kind = self.contract.logged_features.get(name)
            if isinstance(value, float) and not math.isfinite(value):
                features[name] = None
            elif kind is None:
                if isinstance(value, list | Mapping):
                    valid = "a number, a text, a boolean or null"
                    raise InvalidEventError(f"feature `{name}` is a {name_json_type(value)}; valid: {valid}")
            elif kind is not FeatureType.TEXT and value is not None:
                features[name] = self._convert_feature(value, kind)
        return features

    def _convert_feature(self, value: Any, kind: FeatureType) -> Any:
        """Return a number or boolean as the mapping declares it; what it does not declare stays as it is."""
        if self._is_gap(value):
            return None
        if kind is FeatureType.BOOLEAN:
            return value if isinstance(value, bool) else self._parse_boolean(value)
        if isinstance(value, str):
            number = self._parse_number(value)
            return value if number is None else number
        return value

    def _is_missing(self, value: Any) -> bool:
        if value is None:
            return True
        if isinstance(value, float):
            return value != value
        return value == "" and self.mapping.numbers_as_text

    def _is_gap(self, value: Any) -> bool:
        """Return whether a value is missing, or a word for that.

        Of numbers, booleans and labels only: a text or an id may be such a word.
        """
        if self._is_missing(value):
            return True
        return self.mapping.numbers_as_text and isinstance(value, str) and value.strip().lower() in _GAPS

    def _parse_number(self, value: Any) -> float | None:
        if isinstance(value, str):
            if not self.mapping.numbers_as_text:
                return None
            text = value.strip()
            if self.mapping.decimal_comma:
                text = text.replace(".", "").replace(",", ".")
            try:
                number = float(text)
            except ValueError:
                return None
            return number if math.isfinite(number) and "_" not in text else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None

    def _parse_boolean(self, value: Any) -> Any:
        if isinstance(value, str) and self.mapping.numbers_as_text:
            return _BOOLEANS.get(value.strip().lower(), value)
        if self.mapping.booleans_as_numbers and isinstance(value, int | float) and value in (0, 1):
            return bool(value)
        return value

    def _describe_no_number(self, path: str, value: Any) -> str:
        shown = f"the text {value[:40]!r}" if isinstance(value, str) else f"a {name_json_type(value)}"
        is_number = isinstance(value, str) and not self.mapping.numbers_as_text
        hint = "; where numbers come as text, declare FieldMapping(numbers_as_text=True)" if is_number else ""
        return f"`{path}` is {shown}; valid: a finite number{hint}"

    def _parse_text_time(self, text: str, path: str) -> datetime:
        pattern = self.mapping.time_format
        try:
            found = datetime.fromisoformat(text) if pattern is None else datetime.strptime(text, pattern)
        except ValueError:
            valid = "a time in ISO 8601" if pattern is None else f"a time as {pattern!r}"
            other = "; declare another pattern with FieldMapping(time_format=…)" if pattern is None else ""
            raise InvalidEventError(shorten_message(f"`{path}` is {text[:80]!r}; valid: {valid}{other}")) from None
        return self._place(found, path)

    def _place(self, moment: datetime, path: str) -> datetime:
        """Give a time its declared zone. Of an hour that comes twice the first counts; one that never came raises."""
        if moment.tzinfo is not None:
            return moment
        if self.mapping.time_zone is None:
            raise InvalidEventError(
                f"`{path}` is {moment.isoformat()} without a zone; send one, or declare "
                'FieldMapping(time_zone="Europe/Berlin") (or "UTC")'
            )
        zone = ZoneInfo(self.mapping.time_zone)
        placed = moment.replace(tzinfo=zone).astimezone(UTC)
        if placed.astimezone(zone).replace(tzinfo=None) != moment:
            raise InvalidEventError(
                f"`{path}` is {moment.isoformat()}, an hour that clocks in {self.mapping.time_zone} skipped; declare "
                "the zone that these times are in"
            )
        return placed


def write_id(value: Any) -> str | None:
    """Return a text or a whole number as text; None for every other value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and abs(value) < 10**40:
        return str(value)
    if isinstance(value, float) and value.is_integer():  # tables hold integers with gaps as floats
        return str(int(value))
    return None


@lru_cache(maxsize=1024)
def _split(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))
