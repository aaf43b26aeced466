"""Wraps model libraries and the model server for training, evaluation and the demo.

Generation, weights, processes of their own, boosting, the registry and the rollout. Model libraries are imported inside
functions; of ours it imports `promotion`, `measures`, `lake.storage`, `records` and `errors`.
"""
