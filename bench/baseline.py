"""The paper's procedure, done plainly, to measure against: for each stage a run of its own; for each pair two
forward passes, and every frame of the window decoded; all activations in lists.

Kinder than the original in two things that cost it more: no gradients are kept, and a forward pass ends after
its stage.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from static_dynamic.analysis import estimate_pairs
from static_dynamic.analysis.estimate.estimator import Estimate
from static_dynamic.datasets import ClipList, make_views, preprocess
from static_dynamic.models import VideoNetwork

BATCH = 2  # the original's default


class Pairs(Dataset):
    """Item i: factor, and both members of pair i as the pathways of the network see them."""

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
        # shuffled frames are those of the first member; another style is decoded anew
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
def plain(
    net: VideoNetwork,
    clips: ClipList,
    *,
    window: int,
    count: int,
    stage: str,
    device: torch.device,
    num_workers: int,
) -> Estimate:
    """One run of the plain procedure: one stage of `count` pairs."""
    source = DataLoader(Pairs(clips, net, window, count), batch_size=BATCH, num_workers=num_workers)
    za, zb, factors = [], [], []
    for factor, *members in source:
        for member, rows in zip(members, (za, zb), strict=True):
            inputs = [pathway.to(device) for pathway in member]
            read = net.read(inputs if len(inputs) > 1 else inputs[0], [stage])[stage]
            rows.append(read.cpu().numpy())
        factors.append(factor.numpy())
    return estimate_pairs(*(np.concatenate(part) for part in (za, zb, factors)))
