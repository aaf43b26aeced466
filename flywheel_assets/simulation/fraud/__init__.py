"""A simulated card-fraud world: cards, terminals, three kinds of fraud, late labels, and the model that decides."""
