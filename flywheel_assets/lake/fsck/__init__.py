"""Looks for damage in everything that a home holds, says cause and repair of each finding, and mends what is safe.

One module a kind of thing: tables, accounts, landing, versions, models, home and databases. `inspecting` puts them
together, `mending` repairs. May import every room of the lake.
"""
