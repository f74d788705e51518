"""Networks, with the stages, input and checkpoints of networks; nothing about data sets or statistics."""

from static_dynamic import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, __file__)
