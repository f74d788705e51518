"""Benchmarks that are run by hand and print times, ratios or coverages. RESULTS.md lists past results."""
