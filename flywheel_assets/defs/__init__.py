"""Builds the Dagster definitions: assets, jobs, schedules, sensors, checks and resources of each application.

Every body calls one function of a lower room. Only this room, `applications/` and the demo's entrances import
dagster; it may import every room below `review`.
"""
