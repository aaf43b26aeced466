"""Trains adapters and classifiers, each in a process of its own, by typed recipes."""
