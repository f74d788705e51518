"""Estimators of mutual information and CKA between activations for paired views (``task=information``)."""
