"""Draw the dynamic and static percentages of fusion layers as curves over training iterations.

    python misc/plot_iterations.py --in_dir DIR --out_plot iterations_%s.png

DIR holds one result file per training iteration. The file name ends in the iteration, as in MODEL_5000.txt.
With %s in --out_plot one figure per stage is written.
"""

import sys
from pathlib import Path

from static_dynamic.analysis.vos.original_reader import read_iterations
from static_dynamic.analysis.vos.stage_figures import draw_iterations
from static_dynamic.command import Options, command
from static_dynamic.errors import UserError


@command
def main() -> None:
    """Draw dynamic and static percentages over training iterations."""
    parser = Options(__doc__)
    parser.add_argument("--in_dir", type=Path, required=True, help="folder of result files")
    parser.add_argument("--out_plot", default="iterations.png", help="figure to write")
    parser.add_argument("--stream", default="sensor_fusion", help="stream of the stages")
    given = parser.parse_args()
    table = read_iterations(given.in_dir)
    table = table[table["stream"] == given.stream]
    if table.empty:
        raise UserError(
            f"{given.in_dir}: no result file has a stage of stream {given.stream}: give another --stream"
        )
    stages = {f"{given.stream}_{place}": rows for place, rows in table.groupby("place")}
    parts = {given.out_plot.replace("%s", name): {name: rows} for name, rows in stages.items()}
    for path, part in parts.items() if "%s" in given.out_plot else [(given.out_plot, stages)]:
        draw_iterations(part, Path(path), given.in_dir.resolve().name)
        print(path)


if __name__ == "__main__":
    sys.exit(main())
