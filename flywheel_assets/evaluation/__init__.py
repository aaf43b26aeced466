"""Evaluates challengers with their models, in a process of its own."""
