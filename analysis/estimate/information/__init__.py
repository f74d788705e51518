"""Measures of what pairs share beside the paper's scores: task ``information``."""
