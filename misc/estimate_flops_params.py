"""Count the multiply-adds and parameters of one network, or of all networks.

    python misc/estimate_flops_params.py
    python misc/estimate_flops_params.py --model slowfast_r50_8x8 --crop 256
    python misc/estimate_flops_params.py --cfg_file configs/rtnet_davis.json

With --cfg_file the input has 240 x 427 pixels, and the cost of a batch of two is printed too, as in Kowal et
al.'s code.
"""

import argparse
import sys

from omegaconf import DictConfig, OmegaConf

from static_dynamic import configs
from static_dynamic.command import Options, command, positive
from static_dynamic.configs.cfg_file import read_cfg_file, to_overrides
from static_dynamic.errors import UserError
from static_dynamic.models import build_from_row, list_models
from static_dynamic.models.cost import at_size, measure

# Kowal et al.'s code uses this input size (height, width) and this batch size.
SIZE, BATCH = [240, 427], 2


@command
def main() -> None:
    """Print multiply-adds and parameters of each network as a table."""
    parser = Options(__doc__)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--model", help="a file name in configs/model (default: all networks)")
    chosen.add_argument("--cfg_file", help="a json file of Kowal et al.'s code for video object segmentation")
    parser.add_argument("--name", help="network of an external package: --model timm --name resnet50")
    parser.add_argument("--frames", type=positive, help="frames of the input (default: the network's)")
    parser.add_argument("--crop", type=positive, help="input height and width (default: the network's)")
    parser.add_argument("--checkpoint", help="also load this checkpoint, to check that it fits the network")
    parser.add_argument("--random_seed", type=int, default=1, help="seed of the random weights")
    given = parser.parse_args()
    if given.checkpoint and not (given.model or given.cfg_file):
        raise UserError("--checkpoint needs one network: give --model or --cfg_file too")
    print(f"{'model':<30}{'T x H x W':>14}{'GFLOPs':>10}{'params (M)':>12}")
    checkpoint = None if given.checkpoint == "imgnet" else given.checkpoint or None
    for row in rows(given):
        cost = measure(build_from_row(row, checkpoint=checkpoint, seed=given.random_seed))
        size = f"{cost.frames} x {cost.height} x {cost.width}"
        numbers = f"{cost.multiply_adds / 1e9:>10.2f}{cost.parameters / 1e6:>12.2f}"
        print(f"{row.name:<30}{size:>14}{numbers}", flush=True)
    if given.cfg_file:
        print(f"\nbatch of {BATCH}, as in the paper's program: {BATCH * cost.multiply_adds / 1e9:.2f} GFLOPs")
    print("\nGFLOPs: 1e9 multiply-adds per clip (convolutions, linear layers, matrix products, attention)")


def rows(given: argparse.Namespace) -> list[DictConfig]:
    """Return the configurations of the requested networks, with the requested input size."""
    size = given.crop or (SIZE if given.cfg_file else None)
    if given.cfg_file:
        named = [row_of_file(given.cfg_file)]
    else:
        named = [configs.row("model", name) for name in ([given.model] if given.model else list_models())]
    for row in named:
        row.name = given.name or row.name
    return [at_size(row, frames=given.frames, crop=size) for row in named]


def row_of_file(name: str) -> DictConfig:
    """Return the network configuration that a json file of Kowal et al.'s code describes."""
    found = to_overrides(read_cfg_file(name), name)
    row = configs.row("model", found["model"])
    for key, value in found.items():
        if key.startswith("model."):
            OmegaConf.update(row, key.removeprefix("model."), value)
    return row


if __name__ == "__main__":
    sys.exit(main())
