"""Writes durable files, locks tables, opens DuckDB and S3, and translates the errors of all of them.

Visible means complete; written means on disk. Knows no table. May import `curation.sql_literals` and `errors`.
"""
