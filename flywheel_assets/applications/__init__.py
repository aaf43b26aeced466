"""Holds the two examples, one short file each; a team's own applications replace them.

Imports `config` for the types and `defs.flywheels` for the Dagster definitions.
"""
