"""Trains, judges, keeps and serves small linear heads that find toxic language in sentence embeddings.

| module | what it does |
|---|---|
| `functional_suite` | writes a test by functionality, for thresholds and for a first head |
| `encoder`, `encoder_process` | turn texts into vectors, in a process of their own |
| `signals` | says what a word list can say about a text |
| `head` | scores vectors and signals; a JSON file without code |
| `training` | fits and calibrates a head, and sets its thresholds |
| `reviewed_texts` | reads the reviewers' decisions as training texts |
| `gate` | decides whether a head may replace the one that serves |
| `store` | keeps heads, reports and the one that serves |
| `check` | asks the serving head, as a check of the policy |
"""
