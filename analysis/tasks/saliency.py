"""Task ``saliency``: find the kernels that class predictions depend on (Class Feature Pyramids).

The results are graphs, saliency tubes and an HTML page. With ``task.profile`` the results also say which
kernels are static, dynamic, joint or residual.
"""

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.explain.explain_clips import explain_clips


def run(cfg: DictConfig) -> Path:
    """Explain class predictions for the video ``task.input`` or the data set; return the output folder."""
    return explain_clips(cfg)
