"""Files, clips, views and pairs; nothing of models or statistics."""

from datasets.clips import Clip, ClipList, list_clips
from datasets.loader import ViewBatches, loader, preprocess, to_inputs
from datasets.views import make_views

__all__ = ["Clip", "ClipList", "ViewBatches", "list_clips", "loader", "make_views", "preprocess", "to_inputs"]
