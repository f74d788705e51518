"""Turn videos into stylized videos: the pairs that everything rests on come from them."""

from stylize.checkpoints import load_generator
from stylize.networks import build_generator

__all__ = ["build_generator", "load_generator"]
