"""Takes events over HTTP and acknowledges each one after it is durable.

It imports settings, records, the lake's storage and landing, and the score contract of curation; never Dagster and no
model library.
"""
