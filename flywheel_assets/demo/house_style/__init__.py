"""Plays a small story with a real model: people want one sentence, and SmolLM2 learns it from their edits."""
