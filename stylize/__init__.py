"""Turn videos into stylized videos: the pairs that everything rests on come from them."""

from configs.lazy import lazy_face

# what renders frames does without torch
__getattr__, __dir__, __all__ = lazy_face(
    __name__, {"checkpoints": "load_generator", "networks": "build_generator"}
)
