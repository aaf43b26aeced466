"""Keeps everything that lasts: landed events, Iceberg tables, gold versions, and the upkeep and erasure of all three.

Every write is complete or invisible, and every step may be run again. May import `curation`, `measures`, `promotion`,
`records`, `ranges` and `errors`; knows no Dagster and no model library.
"""
