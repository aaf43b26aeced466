"""Expires snapshots, sweeps files that nothing names, and trims old predictions.

May import `lake.versions` and the rooms below it.
"""
