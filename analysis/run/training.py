"""Train a small network on labelled videos that fit into memory, with or without StaticDropout."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from static_dynamic.errors import UserError
from static_dynamic.models import VideoNetwork
from static_dynamic.rng import generator
from static_dynamic.spacing import evenly_spaced

WEIGHT_DECAY = 0.05
# fraction of the steps in which the learning rate rises
WARM_UP = 0.1


@dataclass(frozen=True)
class Schedule:
    """Training schedule: number of steps, batch size, learning rate and number of checkpoints."""

    steps: int
    batch_size: int  # videos per step
    learning_rate: float  # largest learning rate
    # number of evenly spaced checkpoints after step 0
    checkpoints: int

    @property
    def measured(self) -> list[int]:
        """Evenly spaced training steps after which the network is measured, from 0 to ``steps``."""
        return evenly_spaced(self.checkpoints + 1, self.steps + 1).tolist()


@dataclass
class StaticDropout:
    """Forward hook that drops whole units (channels) of a stage during training, static units most often.

    Unit u is dropped with probability `rate` * s_u, where s_u is the measured static part (content plus
    appearance, limited to 0..1) of its variance. Kept units are divided by the probability to be kept, as in
    dropout. The method follows StaticDropout in Kowal et al.'s extended paper (TPAMI 2024); here, the parts
    of the decomposition say how static a unit is.
    """

    rate: float
    seed: int
    # drop probabilities, shape (units,); None before `update`
    probability: Tensor | None = None
    random: torch.Generator = field(init=False)

    def __post_init__(self):
        self.random = torch.Generator().manual_seed(self.seed)

    def update(self, static: NDArray) -> None:
        """Set the units' drop probabilities from their static parts, an array (units,); NaN counts as 0."""
        self.probability = self.rate * torch.from_numpy(np.clip(np.nan_to_num(static), 0, 1)).float()

    def __call__(self, module, inputs, output: Tensor) -> Tensor:
        """Apply dropout of whole units to a stage's output: maps (B, C, T, H, W) or tokens (B, N, C)."""
        if not module.training or self.probability is None:
            return output
        drawn = torch.rand(len(output), len(self.probability), generator=self.random)
        kept = ((drawn >= self.probability) / (1 - self.probability)).to(output.device)  # (B, C)
        return output * (kept[:, None] if output.dim() == 3 else kept[:, :, None, None, None])


def train(
    net: VideoNetwork,
    videos: NDArray[np.uint8],
    labels: NDArray[np.int64],
    schedule: Schedule,
    seed: int,
    device: torch.device,
    dropout: StaticDropout | None = None,
) -> Iterator[tuple[int, float]]:
    """Train `net` in place by cross-entropy; yield (step, mean loss since the last yield) at each checkpoint.

    `videos` (n, 3, T, H, W) have the frames that the network takes. `dropout` acts on the deepest stage,
    which the classifier reads. The network is in eval mode at each yield. The same seed draws the same
    batches, whatever the labels are. Raises UserError if the loss becomes infinite or NaN.
    """
    spec = net.input_spec
    mean, std = (torch.tensor(v, device=device).reshape(1, 3, 1, 1, 1) for v in (spec.mean, spec.std))
    pixels, targets = torch.from_numpy(videos), torch.from_numpy(labels)
    net.to(device).requires_grad_(True)
    optimizer = torch.optim.AdamW(net.parameters(), schedule.learning_rate, weight_decay=WEIGHT_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, total_steps=schedule.steps, pct_start=WARM_UP
    )
    rng = generator(seed, "training", "batches")
    (tap,) = list(net.stages.values())[-1].taps
    handle = net.get_submodule(tap.module).register_forward_hook(dropout) if dropout else None
    try:
        yield 0, np.nan
        for before, after in zip(schedule.measured, schedule.measured[1:], strict=False):
            losses = []
            net.train()
            for _ in range(before, after):
                batch = rng.integers(0, len(pixels), schedule.batch_size)
                clips = (pixels[batch].to(device).float() / 255 - mean) / std
                loss = functional.cross_entropy(net(clips), targets[batch].to(device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                rate.step()
                losses.append(loss.item())
            net.eval()
            if not np.isfinite(losses).all():
                raise UserError("the training loss is not finite: give a smaller task.learning_rate")
            yield after, float(np.mean(losses))
    finally:
        if handle:
            handle.remove()
