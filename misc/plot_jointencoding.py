"""Print and draw the percentage of dynamic, static, joint and residual units per stage.

    python misc/plot_jointencoding.py dim_outputs/vos_models/joint_encoding/MODEL

Writes one figure per stage, and stages.png with all stages, to the folder
dim_outputs/vos_models/joint_encoding_plots/MODEL.
"""

import sys
from pathlib import Path

from static_dynamic.analysis.show.figures import draw_classes
from static_dynamic.analysis.vos.original_reader import read_joint_encoding
from static_dynamic.analysis.vos.stage_figures import draw_joint_encoding
from static_dynamic.command import Options, command
from static_dynamic.errors import UserError

DEFAULT = "dim_outputs/vos_models/joint_encoding/matnet_fusion_type_gated"


@command
def main() -> None:
    """Print and draw the percentages of unit classes per stage."""
    parser = Options(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT, help="folder of unit scores")
    encodes = "score above which a unit counts as dynamic or static"
    parser.add_argument("--threshold", type=float, default=0.5, help=encodes)
    streams = "app_stream, mot_stream, sensor_fusion or all"
    parser.add_argument("--stream", default="sensor_fusion", help=streams)
    parser.add_argument("--out_dir", type=Path, help="default: FOLDER/../../joint_encoding_plots/MODEL")
    given = parser.parse_args()
    folder = given.folder.resolve()
    out = given.out_dir or folder.parent.parent / "joint_encoding_plots" / folder.name
    table = read_joint_encoding(given.folder, given.threshold)
    shown = table if given.stream == "all" else table[table.index.str.endswith(f",{given.stream}")]
    if shown.empty:
        raise UserError(
            f"{given.folder} has no stage of stream {given.stream}, only the stages {', '.join(table.index)}"
        )
    percent = 100 * shown.div(shown.sum(axis=1), axis=0)
    print(f"percent of units at threshold {given.threshold}\n")
    print(percent.to_string(float_format="{:.1f}".format))
    for stage, row in shown.add_prefix("units_").assign(threshold=given.threshold).iterrows():
        draw_classes(row.astype(object), out / f"{stage}.png", stage)
    draw_joint_encoding(percent, out / "stages.png", f"{folder.name} (threshold {given.threshold})")
    print(f"\nfigures in {out}")


if __name__ == "__main__":
    sys.exit(main())
