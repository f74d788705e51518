"""Task ``saliency``: the kernels that predictions depend on (Class Feature Pyramids).

The results are graphs, saliency tubes and an HTML page; with a profile also the classes of these kernels.
"""

from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.explain.explain_clips import explain_clips


def run(cfg: DictConfig) -> Path:
    """Explain predictions for ``task.input`` or the clips of ``cfg.dataset``; return the output folder."""
    return explain_clips(cfg)
