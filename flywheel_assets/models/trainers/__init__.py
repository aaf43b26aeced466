"""Fits classifiers of every kind behind one interface: boosted trees, language models, and a team's own programs.

`fitting.fit_model` and `fitting.load_model` are the entrances. May import the modules of `models`, `records`,
`curation` and `errors`.
"""
