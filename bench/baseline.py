"""Run the procedure of Kowal et al. without optimisations, as the baseline for the speed of extraction.

Each stage has a separate run. Each pair needs two forward passes and decodes every frame of the window. All
activations are collected in lists. Two things are faster than in Kowal et al.'s code: no gradients are kept,
and a forward pass ends after the stage that is read.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from static_dynamic.analysis import estimate_pairs
from static_dynamic.analysis.estimate.estimator import Estimate
from static_dynamic.datasets import ClipList, make_views, preprocess
from static_dynamic.models import VideoNetwork

BATCH = 2  # default of Kowal et al.


class Pairs(Dataset):
    """Data set of pairs of views. Item i is the factor of pair i and the network inputs of both members."""

    def __init__(self, clips: ClipList, net: VideoNetwork, window: int, count: int):
        self.clips, self.spec, self.window = clips, net.input_spec, window
        self.pairs = []
        for seed in range(-(-count // len(clips.clips))):
            views, pairs = make_views(
                clips.clips,
                clips.styles,
                net.input_spec.pathways,
                n_sample_frames=window,
                pairs="paper",
                seed=seed,
            )
            self.pairs += [(p.factor, views.loc[p.a], views.loc[p.b]) for p in pairs.itertuples()]
        self.pairs = self.pairs[:count]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int):
        factor, a, b = self.pairs[i]
        first = self._window(a)
        # Both members of a static pair show the same frames, so these frames are decoded only once.
        second = first if a["style"] == b["style"] else self._window(b)
        return factor, self._pathways(a, *first), self._pathways(b, *second)

    def _window(self, view) -> tuple[list[int], torch.Tensor]:
        start = min(int(view[f"frames_{name}"].min()) for name in self.spec.pathways)
        shown = list(range(start, start + self.window))
        return shown, torch.from_numpy(self.clips.frames_of(view["video"], view["style"]).read(shown))

    def _pathways(self, view, shown: list[int], frames: torch.Tensor) -> list[torch.Tensor]:
        wanted = [np.searchsorted(shown, view[f"frames_{name}"]) for name in self.spec.pathways]
        return [preprocess(frames[torch.from_numpy(w)], self.spec) for w in wanted]


@torch.no_grad()
def run_baseline(
    net: VideoNetwork,
    clips: ClipList,
    *,
    window: int,
    count: int,
    stage: str,
    device: torch.device,
    num_workers: int,
) -> Estimate:
    """Estimate the scores of one stage from `count` pairs by the procedure of Kowal et al."""
    source = DataLoader(Pairs(clips, net, window, count), batch_size=BATCH, num_workers=num_workers)
    za, zb, factors = [], [], []
    for factor, *members in source:
        for member, rows in zip(members, (za, zb), strict=True):
            inputs = [pathway.to(device) for pathway in member]
            read = net.read(inputs if len(inputs) > 1 else inputs[0], [stage])[stage]
            rows.append(read.cpu().numpy())
        factors.append(factor.numpy())
    return estimate_pairs(*(np.concatenate(part) for part in (za, zb, factors)))
