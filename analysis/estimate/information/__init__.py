"""Mutual information and CKA between the activations for two paired views, for ``task=information``."""
