"""Extract, estimate, plot, explain; uses ``datasets`` and ``models`` through their public faces."""

from analysis.bootstrap import RunEstimate, estimate_run
from analysis.class_feature_pyramids import Pyramid, class_feature_pyramid
from analysis.paper import Estimate, estimate_pairs
from analysis.tables import average_runs
from analysis.variance import VarianceEstimate, estimate_variance

__all__ = [
    "Estimate",
    "Pyramid",
    "RunEstimate",
    "VarianceEstimate",
    "average_runs",
    "class_feature_pyramid",
    "estimate_pairs",
    "estimate_run",
    "estimate_variance",
]
