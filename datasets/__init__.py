"""Find the videos of a data set, list its clips, make tables of views and pairs, and decode frames.

This folder holds no code about networks or statistics.
"""

from static_dynamic import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, __file__)
