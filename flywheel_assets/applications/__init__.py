"""The two examples, one short file each; they are on offer while a team has no application of its own.

Imports `config` for the types and `defs.flywheels` for the Dagster definitions.
"""
