"""Mutual information and CKA between the two members of pairs, for ``task=information``."""
