"""Cost of one network or of all: python misc/estimate_flops_params.py --model slowfast_r50_8x8 --crop 256.

    python misc/estimate_flops_params.py --cfg_file configs/rtnet_davis.json

Networks of a json file are counted for 240 x 427 pixels, as in the original, which counts a batch of two.
"""

from __future__ import annotations

import argparse
import sys

# run as a script: the project's packages lie one folder up
from omegaconf import DictConfig, OmegaConf

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.configs.cfg_file import overrides, read_cfg_file
from static_dynamic.errors import UserError
from static_dynamic.models import build_from_row, list_models
from static_dynamic.models.cost import at_size, measure

# what the original counts with: height and width, items at once
SIZE, BATCH = [240, 427], 2


@command
def main() -> None:
    """Print a table."""
    parser = Options(__doc__)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--model", help="a row of configs/model; none: every network of the table")
    chosen.add_argument("--cfg_file", help="a json file of the original (video object segmentation)")
    parser.add_argument(
        "--name", help="the network, where the row wraps a package: --model timm --name resnet50"
    )
    parser.add_argument("--frames", type=positive, help="frames of the clip; none: the network's own")
    parser.add_argument("--crop", type=positive, help="side of the clip in pixels; none: the network's own")
    parser.add_argument("--checkpoint", help="read it too, to see that it fits; counting needs none")
    parser.add_argument("--random_seed", type=int, default=1, help="of weights that no checkpoint gives")
    given = parser.parse_args()
    if given.checkpoint and not (given.model or given.cfg_file):
        raise UserError("--checkpoint is of one network: give --model or --cfg_file too")
    print(f"{'model':<30}{'T x H x W':>14}{'GFLOPs':>10}{'params (M)':>12}")
    for row in rows(given):
        net = build_from_row(
            row,
            checkpoint=None if given.checkpoint == "imgnet" else given.checkpoint or None,
            seed=given.random_seed,
        )
        cost = measure(net)
        size = f"{cost.frames} x {cost.height} x {cost.width}"
        print(
            f"{row.name:<30}{size:>14}{cost.multiply_adds / 1e9:>10.2f}{cost.parameters / 1e6:>12.2f}",
            flush=True,
        )
    if given.cfg_file:
        print(f"\na batch of {BATCH}, as the original counts: {BATCH * cost.multiply_adds / 1e9:.2f} GFLOPs")
    print("\nGFLOPs: 1e9 multiply-adds of one clip (convolutions, linear layers, matrix products, attention)")


def rows(given: argparse.Namespace) -> list[DictConfig]:
    """Rows of ``configs/model`` for the networks that are to be counted, at the size that was asked for."""
    if given.cfg_file:
        named = [row_of_file(given.cfg_file)]
        size = given.crop or SIZE
    else:
        named = [configs.row("model", name) for name in ([given.model] if given.model else list_models())]
        size = given.crop
    for row in named:
        row.name = given.name or row.name
    return [at_size(row, frames=given.frames, crop=size) for row in named]


def row_of_file(name: str) -> DictConfig:
    """The row of ``configs/model`` that a json file of the original asks for."""
    found = overrides(read_cfg_file(name), name)
    row = configs.row("model", found["model"])
    for key, value in found.items():
        if key.startswith("model."):
            OmegaConf.update(row, key.removeprefix("model."), value)
    return row


if __name__ == "__main__":
    sys.exit(main())
