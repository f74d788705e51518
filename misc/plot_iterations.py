"""Draw dynamic and static percentages of the fusion layers over training, from one result file an iteration.

    python misc/plot_iterations.py --in_dir DIR --out_plot iterations_%s.png

The iteration is the last part of a file's name: MODEL_5000.txt. With %s in --out_plot each stage has a file
of its own.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.original_files import read_iterations
from analysis.stage_figures import draw_iterations
from configs import UserError


def main() -> int:
    """Draw; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--in_dir", type=Path, required=True, help="folder of result files")
    parser.add_argument("--out_plot", default="iterations.png", help="file to write (default: %(default)s)")
    parser.add_argument("--stream", default="sensor_fusion", help="default: %(default)s")
    given = parser.parse_args()
    try:
        table = read_iterations(given.in_dir)
        table = table[table["stream"] == given.stream]
        if table.empty:
            raise UserError(f"{given.in_dir}: no result file has a stage of {given.stream}")
        stages = {f"{given.stream}_{place}": rows for place, rows in table.groupby("place")}
        if "%s" in given.out_plot:
            for name, rows in stages.items():
                draw_iterations(
                    {name: rows}, Path(given.out_plot.replace("%s", name)), given.in_dir.resolve().name
                )
                print(given.out_plot.replace("%s", name))
        else:
            draw_iterations(stages, Path(given.out_plot), given.in_dir.resolve().name)
            print(given.out_plot)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
