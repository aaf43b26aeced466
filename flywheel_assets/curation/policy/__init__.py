"""Judges texts by the content policy, one module per hazard: personal data, secrets, injection, language, facts.

A new check starts in the module of its hazard; `policy.py` says which checks run. Pure: no files, no clock. May import
`curation.arrow`, `ranges`, `records` and `errors`.
"""
