"""Recipes and the trainer's own process."""
