"""Average the results of finished runs that differ only in the seed.

    python misc/average_runs.py dim_outputs/MODEL/DATASET/seed00*

Prints, for every stage and every part (content, motion, ...), score and share X:

    X              mean over the n runs
    X_ci           1.96 * std / sqrt(n) as in Kowal et al.'s code; mean -+ X_ci is no 95 % interval if n is
                   small: it contains the true mean in 60, 75, 81 and 85 % of cases for n = 2, 3, 4 and 5
    X_ci_student   half-width of the 95 % interval by Student's t
"""

import sys
from pathlib import Path

from static_dynamic.analysis.estimate.tables import SEED_NOTE, average_runs
from static_dynamic.analysis.run.tables import write_table
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
    print(f"\n{SEED_NOTE}")


if __name__ == "__main__":
    sys.exit(main())
