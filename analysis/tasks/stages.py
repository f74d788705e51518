"""Every module of a network that could be a stage, so that nobody has to guess a layer's name."""

from __future__ import annotations

from omegaconf import DictConfig

from static_dynamic.models import VideoNetwork, build_from_row
from static_dynamic.models.stage_discovery import Candidate, find_candidates


def run(cfg: DictConfig) -> None:
    """Print the modules of ``cfg.model`` in the order in which they run; needs no weights and no data."""
    net = build_from_row(cfg.model, seed=cfg.seed)
    size = " x ".join(map(str, (net.input_spec.frames, *net.input_spec.shape)))
    rows = candidate_rows(net, cfg.model.get("layout"), cfg.model.get("leading_tokens"))
    print(f"{cfg.model.name}, one clip of {size}\n")
    print(format_rows(rows))
    print(f"\n{sum(bool(row['stage']) for row in rows)} of {len(rows)} modules are read as stages")


def candidate_rows(
    net: VideoNetwork, layout: str | None = None, leading_tokens: int | None = None
) -> list[dict]:
    """One row a module that runs, in the order of execution; for `layout` and so on see `find_candidates`."""
    stages: dict[str, list[str]] = {}
    for name, stage in net.stages.items():
        for module in {tap.module: None for tap in stage.taps}:
            stages.setdefault(module, []).append(name)
    return [
        {
            "depth": candidate.depth,
            "module": path.removeprefix(net.prefix),
            "kind": candidate.kind,
            "output of one clip": ", ".join(" x ".join(map(str, shape)) for shape in candidate.shapes),
            "units": candidate.units or "",
            "layout": describe_layout(candidate),
            "stage": ", ".join(stages.get(path, [])),
        }
        for path, candidate in find_candidates(net, layout, leading_tokens).items()
        if f"{path}." != net.prefix  # a wrapped network as a whole
    ]


def describe_layout(candidate: Candidate) -> str:
    """How a module is read, in a few words, or why it cannot be."""
    if not candidate.taps:
        return f"({candidate.reason})"
    tap = candidate.taps[0]
    leading = f" behind {tap.skip} leading" if tap.skip else ""
    folded = f", {tap.fold} rows a clip" if tap.fold > 1 else ""
    return f"{tap.layout}{leading}{folded}"


def format_rows(rows: list[dict]) -> str:
    """Rows as a text table, columns flush left."""
    lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
