"""Daily steps: each computes one partition from its inputs and records it in the ledger.

A partition is replaced, never appended to; a repeated step writes the same rows, and kept + dropped = input.
Imports `lake.tables`, `lake.landing`, `lake.storage` and pure rooms such as `curation`.
"""
