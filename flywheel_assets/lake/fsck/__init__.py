"""Looks for damage in everything that a home holds, and mends what is safe to mend.

One module a kind of thing: tables, accounts, landing, versions, models, home and databases. `inspecting` puts them
together, `mending` repairs. May import every room of the lake.
"""
