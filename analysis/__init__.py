"""Extract, estimate, plot, explain; uses ``datasets`` and ``models`` through their public faces."""

from configs.lazy import lazy_face

# statistics and figures do without torch, which takes seconds to load
__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        "bootstrap": "RunEstimate estimate_run",
        "explain.class_feature_pyramids": "Pyramid class_feature_pyramid",
        "convergence": "estimate_convergence",
        "information.estimate": "InformationEstimate estimate_information",
        "paper": "Estimate estimate_pairs",
        "plan": "plan_study",
        "tables": "average_runs",
        "variance": "VarianceEstimate estimate_variance",
    },
)
