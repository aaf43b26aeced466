"""What-if questions: answers from the tables or a file what other rules would do, and writes no table.

Imports `lake.versions` and what it imports.
"""
