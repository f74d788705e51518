"""Cost of one network or of all: python misc/estimate_flops_params.py --model slowfast_r50_8x8 --crop 256."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# run as a script: the project's packages lie one folder up
sys.path.insert(0, str(Path(__file__).parents[1]))

import configs
from configs import UserError
from models import build_from_row, list_models
from models.cost import at_size, measure


def main() -> int:
    """Print a table; return the exit status: 2 where the user can put it right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a row of configs/model; none: every network of the table")
    parser.add_argument(
        "--name", help="the network, where the row wraps a package: --model timm --name resnet50"
    )
    parser.add_argument("--frames", type=int, help="frames of the clip; none: the network's own")
    parser.add_argument("--crop", type=int, help="side of the clip in pixels; none: the network's own")
    given = parser.parse_args()
    print(f"{'model':<30}{'T x H x W':>14}{'GFLOPs':>10}{'params (M)':>12}")
    try:
        for name in [given.model] if given.model else list_models():
            row = configs.row("model", name)
            if given.name:
                row.name = given.name
            cost = measure(build_from_row(at_size(row, frames=given.frames, crop=given.crop)))
            size = f"{cost.frames} x {cost.height} x {cost.width}"
            print(
                f"{row.name:<30}{size:>14}{cost.multiply_adds / 1e9:>10.2f}{cost.parameters / 1e6:>12.2f}",
                flush=True,
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\nGFLOPs: 1e9 multiply-adds of one clip (convolutions, linear layers, matrix products, attention)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
