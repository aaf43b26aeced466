"""Declares the Iceberg tables, and replaces, reads and tags their partitions.

A partition is replaced as a whole, in one commit, under the table's lock. May import `lake.storage`, `curation`,
`records` and `errors`.
"""
