"""Draw bar charts of unit correlations: mean and standard deviation for each kind of pair.

    python misc/plot_stats_fromtable.py [--in_dir dim_outputs/vos_models/stats_tables] [--out_dir plots_stats]

Reads the tables IN_DIR/MODEL/PLACE,STREAM_SEED.csv with the columns UNIT,A,B,C,D: the unit's correlation over
pairs that share only dynamics (A), only appearance (B), neither (C) or both (D). Draws one figure per table.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from static_dynamic.analysis.vos.original_reader import SEED_OF_TABLE, read_statistics
from static_dynamic.analysis.vos.stage_figures import draw_conditions
from static_dynamic.command import Options, command
from static_dynamic.errors import UserError


@command
def main() -> None:
    """Draw one bar chart per table of unit correlations."""
    parser = Options(__doc__)
    parser.add_argument("--in_dir", type=Path, default="dim_outputs/vos_models/stats_tables", help="tables")
    parser.add_argument("--out_dir", type=Path, default="plots_stats", help="figures")
    given = parser.parse_args()
    tables = sorted(given.in_dir.glob("*/[!.]*.csv"))
    if not tables:
        raise UserError(
            f"{given.in_dir} has no file named like MODEL/PLACE,STREAM_SEED.csv: give the folder of such "
            "files with --in_dir"
        )
    for path in tqdm(tables, unit="table"):
        draw(path, given.out_dir)
    print(f"{len(tables)} figures in {given.out_dir}")


def draw(path: Path, out: Path) -> None:
    """Draw the bar chart of one table; write it to the file MODEL_STREAM_PLACE_SEED.png."""
    name = SEED_OF_TABLE.fullmatch(path.stem)
    if not name:
        raise UserError(
            f"{path}: the name must have the form PLACE,STREAM_SEED.csv; for example, "
            "layer1,app_stream_1.csv has the place layer1, the stream app_stream and the seed 1"
        )
    place, stream, seed = name.groups()
    model = path.parent.name
    own = "static" if stream == "app_stream" else "dynamic"
    figure = out / f"{model}_{stream}_{place}_{seed}.png"
    draw_conditions(read_statistics(path), own, figure, f"{model}, {place},{stream}")


if __name__ == "__main__":
    sys.exit(main())
