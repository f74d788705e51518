"""Average finished runs that differ only in their seed.

    python misc/average_runs.py dim_outputs/MODEL/DATASET/seed00*

Prints per stage the mean and 1.96 * std / sqrt(n) over the n runs, for the scores and the shares.
"""

import sys
from pathlib import Path

from static_dynamic.analysis.estimate.tables import average_runs, write_table
from static_dynamic.command import Options, command


@command
def main() -> None:
    """Print the averages as a table."""
    parser = Options(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    given = parser.parse_args()
    table = average_runs(given.runs)
    if given.csv:
        write_table(given.csv, table)
    print(table.to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    sys.exit(main())
