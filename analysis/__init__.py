"""Extract, estimate, plot, explain; uses ``datasets`` and ``models`` through their public faces."""

from analysis.bootstrap import RunEstimate, estimate_run
from analysis.paper import Estimate, estimate_pairs
from analysis.tables import average_runs
from analysis.variance import VarianceEstimate, estimate_variance

__all__ = [
    "Estimate",
    "RunEstimate",
    "VarianceEstimate",
    "average_runs",
    "estimate_pairs",
    "estimate_run",
    "estimate_variance",
]
