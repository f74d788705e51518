"""Average runs that differ in their seed: mean and 1.96 * std / sqrt(n) of each stage's scores and shares.

python misc/average_runs.py dim_outputs/MODEL/DATASET/seed00*
"""

import sys
from pathlib import Path

from static_dynamic.analysis.estimate.tables import average_runs, write_table
from static_dynamic.command import Options, command


@command
def main() -> None:
    """Print the table."""
    parser = Options(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--csv", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    table = average_runs(arguments.runs)
    if arguments.csv:
        write_table(arguments.csv, table)
    print(table.to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    sys.exit(main())
