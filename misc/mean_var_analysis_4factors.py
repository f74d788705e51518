"""Average the result files of one segmentation network over seeds; each file has four factors.

    python misc/mean_var_analysis_4factors.py dim_outputs/vos_models/results_final_4pairs/MODEL

The table has the columns of mean_var_analysis.py and a fourth factor (pairs that share both dynamics and
appearance).
"""

import sys

from static_dynamic.analysis.vos.original_reader import FOUR_FACTORS
from static_dynamic.misc.mean_var_analysis import main

DEFAULT = "dim_outputs/vos_models/results_final_4pairs/tatt_matnet"

if __name__ == "__main__":
    sys.exit(main(FOUR_FACTORS, DEFAULT, __doc__))
