"""Draw, for each stage, histograms of the dynamic and static shares of its units.

    python misc/plot_histogram.py dim_outputs/vos_models/idv_scores/MODEL

Writes STAGE_mot_hist.png (dynamic) and STAGE_app_hist.png (static) per stage, and stages.png with all stages,
to the folder dim_outputs/vos_models/idv_scores_plots/MODEL.
"""

import sys
from pathlib import Path

from static_dynamic.analysis.vos.original_reader import read_unit_shares
from static_dynamic.analysis.vos.stage_figures import draw_histograms
from static_dynamic.command import Options, command

DEFAULT = "dim_outputs/vos_models/idv_scores/matnet_fusion_type_gated"
FACTOR_OF = {"mot": "dynamic", "app": "static"}


@command
def main() -> None:
    """Draw histograms of the dynamic and static shares of units."""
    parser = Options(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT, help="folder of unit shares")
    parser.add_argument("--out_dir", type=Path, help="default: FOLDER/../../idv_scores_plots/MODEL")
    given = parser.parse_args()
    folder = given.folder.resolve()
    out = given.out_dir or folder.parent.parent / "idv_scores_plots" / folder.name
    shares = read_unit_shares(given.folder)
    for stage, of_units in shares.items():
        for name, factor in FACTOR_OF.items():
            path = out / f"{stage}_{name}_hist.png"
            draw_histograms({stage: of_units}, path, folder.name, (factor,))
    draw_histograms(shares, out / "stages.png", folder.name)
    print(f"figures in {out}")


if __name__ == "__main__":
    sys.exit(main())
