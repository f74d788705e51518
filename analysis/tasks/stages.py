"""Task ``stages``: print the full name of every network module whose output can be analysed."""

from omegaconf import DictConfig

from static_dynamic.analysis.show.stage_table import candidate_rows, format_rows
from static_dynamic.models import build_from_row


def run(cfg: DictConfig) -> None:
    """Print the modules of ``cfg.model`` in order of execution; weights and data are not loaded."""
    net = build_from_row(cfg.model, seed=cfg.seed, units=cfg.units, tokens=cfg.tokens)
    size = " x ".join(map(str, (net.input_spec.frames, *net.input_spec.shape)))
    rows = candidate_rows(net, cfg.model.get("layout"), cfg.model.get("leading_tokens"))
    print(f"{cfg.model.name}, one clip of {size}\n")
    print(format_rows(rows))
    print(f"\n{sum(bool(row['stage']) for row in rows)} of {len(rows)} modules are read as stages")
