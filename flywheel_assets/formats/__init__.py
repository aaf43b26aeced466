"""Reads what other systems have written, and writes what they read.

| module or room | what it promises |
|---|---|
| `reading` | files and streams of any encoding and compression become numbered records, in bounded memory |
| `record`, `messages` | one object read by paths that are remembered; messages of any system as ours |
| `answers`, `statements` | what a prompt, an answer, a thumb, a rating and a word of judgement are, the same for all |
| `preferences`, `annotations`, `logs`, `own` | one module per format turns a record into events, as a pure function |
| `mapping` | the columns of any table become events, by the names that a person gives |
| `catalog`, `conversion` | lists, finds and chooses the format of a source |
| `causes` | groups refused records by cause |
| `writing` | a gold version in the formats of training tools |

It knows no landing zone, no table and no application; it imports `wire`, `conversations` and what lies below.
"""
