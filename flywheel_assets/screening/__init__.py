"""Checks texts with a model: a local classifier in its own process, or a judge behind an HTTP endpoint."""
