"""Asks models about texts, as checks of the content policy: a local classifier, or a judge behind HTTP.

A check that gets no answer quarantines its rows. May import `curation` and `models`.
"""
