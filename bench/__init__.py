"""Benchmarks of speed, memory and interval coverage, which are run by hand. RESULTS.md lists past results."""
