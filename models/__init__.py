"""Video networks: build a network, load a checkpoint, prepare the input and read stages."""

from static_dynamic import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, __file__)
