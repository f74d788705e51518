"""Files, clips, views and pairs; nothing of models or statistics."""

from datasets.clips import Clip, ClipList, list_clips, parse_styles
from datasets.davis import DavisClips, list_davis
from datasets.flow_batches import FlowBatches, flow_inputs
from datasets.loader import ViewBatches, preprocess, to_inputs
from datasets.transfer import on_device
from datasets.views import make_views
from datasets.workers import loader

__all__ = [
    "Clip",
    "ClipList",
    "DavisClips",
    "FlowBatches",
    "ViewBatches",
    "flow_inputs",
    "list_clips",
    "list_davis",
    "loader",
    "make_views",
    "on_device",
    "parse_styles",
    "preprocess",
    "to_inputs",
]
