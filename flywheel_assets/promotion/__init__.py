"""The promotion decision from measures and limits, for texts and for classifiers. Pure."""
