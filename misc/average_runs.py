"""Average the results of finished runs that differ only in the seed.

    python misc/average_runs.py dim_outputs/MODEL/DATASET/seed00*

For every stage, score and share, prints the mean over the n runs and 1.96 * std / sqrt(n).
"""

import sys
from pathlib import Path

from static_dynamic.analysis.estimate.tables import average_runs, write_table
from static_dynamic.command import Options, command


@command
def main() -> None:
    """Print the averages over runs as a table."""
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
