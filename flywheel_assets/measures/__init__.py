"""Measures models and data: edit distance, classifier metrics, drift. Pure."""
