"""Computes one day's partition of a table from its inputs, and records the day in the ledger.

A partition is replaced, never appended to; a repeated step writes the same rows, and kept + dropped = input.
May import `lake.tables`, `lake.landing`, `lake.storage` and pure rooms such as `curation`.
"""
