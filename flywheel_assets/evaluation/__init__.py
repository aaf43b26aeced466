"""Generation and scoring that need a model, in their own process."""
