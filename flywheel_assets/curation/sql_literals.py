"""Writes our values as DuckDB SQL literals, where a rule becomes an expression and no parameter can be bound."""

import math


def quote(text: str) -> str:
    """Write `text` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_double(value: float) -> str:
    """Write `value` as a DOUBLE, bit for bit.

    Without an exponent DuckDB reads a DECIMAL, whose products overflow or are rounded.

    Raises:
        ValueError: infinity and NaN have no literal.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value!r} has no SQL literal; only finite numbers have one")
    text = repr(float(value))
    return text if "e" in text else f"{text}e0"
