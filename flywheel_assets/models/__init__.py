"""What needs a model library or a model server and is shared by training, evaluation and the demo.

Generation, weights, processes of their own, boosting, the registry and the rollout. Model libraries are imported inside
functions; of ours it imports `promotion`, `measures`, `lake.storage`, `records` and `errors`.
"""
