"""Extract network activations, estimate scores, show results, and explain class predictions."""

from static_dynamic import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, __file__)
