"""Upkeep: expires snapshots, sweeps files that nothing names, trims old predictions.

Imports `lake.versions` and what it imports.
"""
