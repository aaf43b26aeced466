"""A simulated world for the demo, the tests and the benchmarks."""
