"""Histograms of the shares of units, a figure a stage and factor: STAGE_mot_hist.png and STAGE_app_hist.png.

    python misc/plot_histogram.py dim_outputs/vos_models/idv_scores/MODEL

Figures go beside it, to idv_scores_plots/MODEL; stages.png there holds all stages.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.original_files import read_unit_shares
from analysis.stage_figures import draw_histograms
from configs import UserError

DEFAULT = "dim_outputs/vos_models/idv_scores/matnet_fusion_type_gated"
FACTOR_OF = {"mot": "dynamic", "app": "static"}


def main() -> int:
    """Draw; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=DEFAULT, help="shares of units (default: %(default)s)"
    )
    parser.add_argument("--out_dir", type=Path, help="default: idv_scores_plots/MODEL beside it")
    given = parser.parse_args()
    folder = given.folder.resolve()
    out = given.out_dir or folder.parent.parent / "idv_scores_plots" / folder.name
    try:
        shares = read_unit_shares(given.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for stage, of_units in shares.items():
        for name, factor in FACTOR_OF.items():
            path = out / f"{stage}_{name}_hist.png"
            draw_histograms({stage: of_units}, path, folder.name, (factor,))
    draw_histograms(shares, out / "stages.png", folder.name)
    print(f"figures in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
