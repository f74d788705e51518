"""Benchmarks, run by hand: each prints ratios measured within one run. RESULTS.md holds the results."""
