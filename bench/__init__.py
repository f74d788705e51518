"""Measured numbers, each a ratio within one run; run by hand, results in RESULTS.md."""
