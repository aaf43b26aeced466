"""Reads what other systems have written, and writes what they read.

- `reading`: files and streams of any encoding and compression become numbered records, in bounded memory.
- One module per format turns one record into events, as a pure function: `preferences` (comparison sets), `annotations`
  (tools in which people judge), `logs` (what serving and observability tools keep). `catalog` lists and detects them.
- `writing`: a gold version in the formats of training tools.

It knows no landing zone, no table and no application; it imports `wire`, `conversations` and what lies below.
"""
