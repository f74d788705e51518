"""Table of a network's modules: output shapes, output layouts, and the stages that read the outputs."""

from static_dynamic.models import VideoNetwork
from static_dynamic.models.stage_discovery import Candidate, find_candidates


def candidate_rows(
    net: VideoNetwork, layout: str | None = None, leading_tokens: int | None = None
) -> list[dict]:
    """Return one table row per module of the network, in order of execution.

    The arguments are those of `find_candidates`.
    """
    return [
        {
            "depth": candidate.depth,
            "module": key.removeprefix(net.prefix),
            "kind": candidate.kind,
            "output of one clip": ", ".join(" x ".join(map(str, shape)) for shape in candidate.shapes),
            "units": candidate.units or "",
            "layout": describe_layout(candidate),
            "stage": ", ".join(stages_of(net, candidate)),
        }
        for key, candidate in find_candidates(net, layout, leading_tokens).items()
        # leave out the module that wraps the whole network
        if f"{key}." != net.prefix
    ]


def stages_of(net: VideoNetwork, candidate: Candidate) -> list[str]:
    """Return the names of the stages that read the same module, in the same run of it, as `candidate`."""
    runs = {tap.run for tap in candidate.taps}
    return [
        name
        for name, stage in net.stages.items()
        if any(tap.module == candidate.module and tap.run in runs | {None} for tap in stage.taps)
    ]


def describe_layout(candidate: Candidate) -> str:
    """Describe how a module's output is read or, in brackets, why the output cannot be read."""
    if not candidate.taps:
        return f"({candidate.reason})"
    tap = candidate.taps[0]
    leading = f" behind {tap.skip} leading" if tap.skip else ""
    batch = f", clips on axis {tap.batch_axis}" if tap.batch_axis else ""
    folded = f", {tap.fold} rows per clip" if tap.fold > 1 else ""
    return f"{tap.layout}{leading}{batch}{folded}"


def format_rows(rows: list[dict]) -> str:
    """Return `rows`, dicts whose keys are the column headings, as text in left-aligned columns."""
    lines = [list(rows[0]), *([str(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
