"""Data sets: find video files and list their clips, views and pairs. No code about networks or statistics."""

from static_dynamic import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, __file__)
