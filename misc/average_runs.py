"""Average runs that differ in their seed: mean and 1.96 * std / sqrt(n) of each stage's scores and shares.

python misc/average_runs.py dim_outputs/MODEL/DATASET/seed00*
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis import average_runs
from configs import UserError


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--csv", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    try:
        table = average_runs(arguments.runs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    print(table.to_string(index=False, float_format="{:.4f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
