"""The promotion gate: decides from measures and limits, for text models and for classifiers. Pure."""
