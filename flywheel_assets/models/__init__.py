"""Wraps what needs a model library or MLflow: generation, weights, boosting, processes, the registry, the rollout.

Model libraries are imported inside functions. May import `promotion`, `measures`, `lake.storage`, `records` and
`errors`.
"""
