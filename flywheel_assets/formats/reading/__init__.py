"""Turns files and streams of any usual shape into numbered records, in bounded memory.

| module | what it knows |
|---|---|
| `entries` | an entry, a refused entry, the options, and how one JSON object is decoded |
| `sources` | files, folders, patterns and standard input by name |
| `opening` | which of the shapes below a source has |
| `_streams` | compression by magic bytes, and encodings |
| `_objects` | JSON: lines, arrays, pretty printed, concatenated, wrapped in an object |
| `_tables` | CSV and TSV |
| `_parquet` | Parquet |

What a record means is not known here: formats know that.
"""
