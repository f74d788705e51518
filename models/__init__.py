"""Networks, their stages, their input and their checkpoints; nothing of data sets or statistics."""

from models.registry import build_from_row, build_model, list_models
from models.stages import InputSpec, Stage, Tap, VideoNetwork

__all__ = ["InputSpec", "Stage", "Tap", "VideoNetwork", "build_from_row", "build_model", "list_models"]
