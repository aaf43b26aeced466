"""Durable files, table locks, DuckDB connections and error translation. Knows no table; imports `errors` only."""
