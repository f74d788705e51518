"""Measures of shared information beside the paper's scores: task ``information``."""
