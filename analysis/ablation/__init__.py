"""Ablation: remove units of a stage from a network, and measure what happens to its predictions."""
