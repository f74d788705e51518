"""Average result files of four factors over seeds: as mean_var_analysis.py, with pairs that share both as the
fourth.

    python misc/mean_var_analysis_4factors.py dim_outputs/vos_models/results_final_4pairs/MODEL
"""

import sys

from static_dynamic.analysis.vos.original_files import FOUR_FACTORS
from static_dynamic.misc.mean_var_analysis import main

DEFAULT = "dim_outputs/vos_models/results_final_4pairs/tatt_matnet"

if __name__ == "__main__":
    sys.exit(main(FOUR_FACTORS, DEFAULT, __doc__))
