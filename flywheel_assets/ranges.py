"""Declares the ranges of a team's configuration as types, with one error for a value outside.

A rules class inherits `Checked` and annotates its fields with the types below, or with `Annotated` and any of
`annotated_types`' Gt, Ge, Lt, Le and MinLen. The range stands where the field stands, and mypy, the check and a reader
see the same. Rejected: pydantic's dataclasses. They build a schema per class when a code location is loaded, convert
wrong values ("3" becomes 3), and raise an error of their own (ADR 30).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen

from flywheel_assets.errors import SettingsError

Count = Annotated[int, Ge(1)]
"""A whole number from 1 on."""
CountOrZero = Annotated[int, Ge(0)]
"""A whole number from 0 on."""
Positive = Annotated[float, Gt(0)]
"""A finite number above 0."""
NotNegative = Annotated[float, Ge(0)]
"""A finite number from 0 on."""
Share = Annotated[float, Ge(0), Le(1)]
"""A part of a whole, both ends included."""
PositiveShare = Annotated[float, Gt(0), Le(1)]
"""A part of a whole that is never nothing."""
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
"""A part of a whole that is never all of it."""
Name = Annotated[str, MinLen(1)]
"""A text that is not empty."""

_KINDS: dict[type, str] = {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False"}


class Checked:
    """Checks the values of a frozen dataclass against the ranges of its annotations.

    It checks numbers, texts, booleans, None, literals, members of enums, and the members of tuples and mappings of
    these. Mypy checks every other kind of field.
    """

    def __post_init__(self) -> None:
        kind: type = type(self)
        for name, hint in _read_hints(kind).items():
            for where, value, valid in _find_misfits(name, getattr(self, name), hint):
                raise self.build_range_error(where, value, valid)
        self._check_together()

    def _check_together(self) -> None:
        """Raise `build_range_error` where fields contradict each other; every value alone is in its range."""

    def build_range_error(self, name: str, value: object, valid: str) -> SettingsError:
        """Build the error that names the field, its value, the valid values and the next action."""
        kind = type(self).__name__
        return SettingsError(f"{kind}.{name} is {value!r}; need {valid}. {_describe_next_action(type(self), name)}")


def _describe_next_action(kind: type, name: str) -> str:
    known = {each.name: each.default for each in fields(kind)}
    default = known.get(name, MISSING)
    action = f"Correct it where {kind.__name__} is made"
    return f"{action}." if default is MISSING else f"{action}, or leave it out for {default!r}."


@cache
def _read_hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name] for each in fields(kind)}


def _find_misfits(where: str, value: Any, hint: Any) -> Iterator[tuple[str, object, str]]:
    """Find each place in a value that its annotation does not allow, with its value and the valid values."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    found = [list(_find_misfits_of_one(where, value, option)) for option in options]
    if all(found):
        # For "a range or None" the message names the range.
        place, inner, valid = found[0][0]
        is_optional = type(None) in options and place == where
        yield place, inner, f"{valid}, or None" if is_optional else valid


def _find_misfits_of_one(where: str, value: Any, hint: Any) -> Iterator[tuple[str, object, str]]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        inner, bounds = arguments[0], hint.__metadata__
        misfits = list(_find_misfits(where, value, inner))
        if misfits:
            place, found, valid = misfits[0]
            yield place, found, f"{valid}, {_describe_range(bounds)}" if place == where else valid
        elif not all(_is_within(value, bound) for bound in bounds):
            yield where, value, _describe_range(bounds)
    elif hint is type(None):
        if value is not None:
            yield where, value, "None"
    elif origin is Literal:
        if value not in arguments:
            yield where, value, "one of " + ", ".join(map(repr, arguments))
    elif hint in _KINDS:
        if not _is_instance(value, hint):
            yield where, value, _KINDS[hint]
    elif isinstance(hint, type) and issubclass(hint, Enum):
        # The text of a member is refused, too: what asks for its `value` or its identity would fail much later.
        if not isinstance(value, hint):
            yield where, value, "one of " + ", ".join(_name_members(hint))
    elif origin is tuple:
        yield from _find_misfits_of_members(where, value, arguments)
    elif origin in (Mapping, dict) and isinstance(value, Mapping):
        for key, member in value.items():
            yield from _find_misfits(f"{where}[{key!r}]", member, arguments[1])


def _find_misfits_of_members(where: str, value: Any, hints: tuple[Any, ...]) -> Iterator[tuple[str, object, str]]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        yield where, value, "a tuple"
    elif hints[-1] is Ellipsis:
        for number, member in enumerate(value):
            yield from _find_misfits(f"{where}[{number}]", member, hints[0])


def _is_instance(value: object, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is int:
        return isinstance(value, Integral)
    if kind is float:
        # NaN compares as false with everything, and no bound of ours means infinity.
        return isinstance(value, Real) and math.isfinite(value)
    return isinstance(value, kind)


def _name_members(kind: type[Enum]) -> list[str]:
    return [f"{kind.__name__}.{member.name}" for member in kind]


def _is_within(value: Any, bound: object) -> bool:
    match bound:
        case Gt(least):
            return bool(value > least)
        case Ge(least):
            return bool(value >= least)
        case Lt(most):
            return bool(value < most)
        case Le(most):
            return bool(value <= most)
        case MinLen(least):
            return len(value) >= least
    raise TypeError(f"{bound!r} is no bound that is checked here; use Gt, Ge, Lt, Le or MinLen")


def _describe_range(bounds: tuple[object, ...]) -> str:
    match bounds:
        case (Ge(least), Le(most)):
            return f"{least} to {most}"
        case (MinLen(1),):
            return "at least one member or character"
    words = {Gt: "more than", Ge: "at least", Lt: "less than", Le: "at most", MinLen: "a length of at least"}
    return ", ".join(f"{words[type(bound)]} {_read_number(bound)}" for bound in bounds)


def _read_number(bound: Any) -> object:
    [number] = (getattr(bound, each.name) for each in fields(bound))
    return number
