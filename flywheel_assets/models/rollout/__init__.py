"""Splits the users between two models, describes each change of it as one event, and announces that event.

`traffic` holds the shares, `events` the schema, `announce` the command and the signed webhook. May import `errors` and
`ranges`. `models.registry` stores the state, next to the alias that it belongs to.
"""
