"""Write the mean frame of a run's network inputs, on which maps of cells are shown."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from static_dynamic.analysis.run.extraction import decode_sample
from static_dynamic.datasets import ClipList
from static_dynamic.files import atomic_path
from static_dynamic.models import VideoNetwork

MEAN_FRAME = "mean_frame.png"


def write_mean_frame(net: VideoNetwork, clips: ClipList, views, folder: Path, timeout: float) -> None:
    """Write ``mean_frame.png``: the mean of some network inputs, scaled and cropped as the network sees them.

    Does nothing if the file exists, or if all sampled videos are unreadable.
    """
    path = folder / MEAN_FRAME
    if path.exists():
        return
    spec = net.input_spec
    sample = decode_sample(net, clips, views, timeout)
    if not sample:
        return  # maps are then drawn without a mean frame
    inputs = clips.to_inputs(sample, spec, torch.device("cpu"))
    first = inputs["Image"] if isinstance(inputs, dict) else inputs[0] if isinstance(inputs, list) else inputs
    channels = 1 if first.dim() == 5 and first.shape[1] == 3 else first.dim() - 3
    colours = first.movedim(channels, -1).flatten(0, -4).mean(dim=0)  # (H, W, 3)
    colours = (colours * torch.tensor(spec.std) + torch.tensor(spec.mean)).clamp(0, 1)
    with atomic_path(path) as temporary:
        Image.fromarray(np.rint(255 * colours.numpy()).astype(np.uint8)).save(temporary, format="png")
