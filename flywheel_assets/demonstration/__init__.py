"""The demos' wheels: simulated worlds drive the real assets, the real triggers and the real registry."""
