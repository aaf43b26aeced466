"""Speaks to servers of models by OpenAI's protocol; user text goes to an allowed host or nowhere."""
