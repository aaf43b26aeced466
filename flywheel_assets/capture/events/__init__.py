"""Decodes events, edits, scores and labels into landed lines, or refuses them with a reason.

It imports records and the score contract of curation, and knows no HTTP.
"""
