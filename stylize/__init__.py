"""Turn videos into stylized videos."""

from static_dynamic import lazy_face

__getattr__, __dir__, __all__ = lazy_face(__name__, __file__)
