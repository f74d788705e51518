"""Extract, estimate, plot, explain; uses ``datasets`` and ``models`` through their public faces."""

from analysis.bootstrap import RunEstimate, estimate_run
from analysis.class_feature_pyramids import Pyramid, class_feature_pyramid
from analysis.convergence import estimate_convergence
from analysis.information import InformationEstimate, estimate_information
from analysis.paper import Estimate, estimate_pairs
from analysis.plan import plan_study
from analysis.tables import average_runs
from analysis.variance import VarianceEstimate, estimate_variance

__all__ = [
    "Estimate",
    "InformationEstimate",
    "Pyramid",
    "RunEstimate",
    "VarianceEstimate",
    "average_runs",
    "class_feature_pyramid",
    "estimate_convergence",
    "estimate_information",
    "estimate_pairs",
    "estimate_run",
    "estimate_variance",
    "plan_study",
]
