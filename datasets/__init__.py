"""Files, clips, views and pairs; nothing of models or statistics."""

from datasets.clips import Clip, ClipList, list_clips, parse_styles
from datasets.loader import ViewBatches, loader, preprocess, to_inputs
from datasets.views import make_views

__all__ = [
    "Clip",
    "ClipList",
    "ViewBatches",
    "list_clips",
    "loader",
    "make_views",
    "parse_styles",
    "preprocess",
    "to_inputs",
]
