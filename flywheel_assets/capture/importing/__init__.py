"""Imports existing telemetry from files, through the same checks and event log as HTTP.

| module | what it does |
|---|---|
| `files` | reads sources, finds the format of each, lands its records or only looks at them |
| `report` | what was accepted and refused, by file and by cause |
| `sinks` | where landed rows go: the event log, or nowhere |
| `_landing` | the rows of one record, for texts and for scores |

Rows get the source `import:<format>` where a format's ids are unique in the system that made them, so that a second
export of the same records is recognised under any file name; other rows get `import:<file name>`. Ids are the given
ones or hashes of the content, so importing a file twice lands duplicates that the lake drops. A bad record costs only
itself.
"""
