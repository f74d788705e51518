"""Average the result files of one segmentation network over seeds.

    python misc/mean_var_analysis.py dim_outputs/vos_models/final/MODEL

For the dynamic and static percentages of each stage, prints the mean over n seeds, 1.96 * std / sqrt(n) as in
Kowal et al.'s code (``_ci``), and the half-width of the 95 % interval by Student's t (``_ci_student``). With
few seeds, the first range is narrower than a 95 % interval. The residual percentage is 100 minus the dynamic
percentage minus the static percentage.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from static_dynamic.analysis.estimate.estimator import FACTORS
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.vos.original_reader import average_seeds, format_average
from static_dynamic.command import Options, command

DEFAULT = "dim_outputs/vos_models/final/matnet_fusion_type_gated"


@command
def main(factors: Sequence[str] = FACTORS, default: str = DEFAULT, description: str | None = __doc__) -> None:
    """Print the averages over seeds as a table."""
    parser = Options(description)
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="folder of result files")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    given = parser.parse_args()
    table = average_seeds(given.folder, factors)
    if given.csv:
        write_table(given.csv, table)
    print(format_average(table))


if __name__ == "__main__":
    sys.exit(main())
