"""The Iceberg tables: what each holds, and how its partitions are replaced, read and tagged.

Imports `lake.storage`.
"""
