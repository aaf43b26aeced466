"""Daily steps: each computes one partition from its inputs and records it in the ledger.

Imports `lake.tables`, `lake.landing` and what they import.
"""
