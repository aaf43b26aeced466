"""Answers what-if questions: the outcome of other rules, for rows of the tables or of a file.

No table is ever written. Imports `lake.versions` and the rooms below it.
"""
