"""Split a stage name into the depth in the network and the pathway or stream that is read.

``stage3`` names only a depth; ``stage3/fuse1/cat`` and ``layer3,mot_stream`` name a pathway or stream, too.
Stages of the same pathway or stream make one curve over depth.
"""

import re
from collections.abc import Iterable, Mapping

from static_dynamic.errors import UserError, nearest


def split_stage(name: str) -> tuple[str, str]:
    """Split a stage name into its depth in the network and its pathway or stream.

    ``stage3/fuse1/cat`` gives (``stage3``, ``fuse1/cat``).
    """
    position, *reading = re.split("[/,]", name, maxsplit=1)
    return position, reading[0] if reading else ""


def group_by_reading(stages: Iterable[str], fuse: bool = True) -> dict[str, list[str]]:
    """Group stage names by pathway or stream (the part after ``/`` or ``,``), in depth order.

    Of SlowFast's stages, `fuse` true keeps those after the lateral connection, false those before it.
    """
    found: dict[str, list[str]] = {}
    for stage in stages:
        found.setdefault(split_stage(stage)[1], []).append(stage)
    other = f"fuse{int(not fuse)}/"
    return {name: members for name, members in found.items() if not name.startswith(other)} or found


def find_stage(stg: int | str, stages: Iterable[str], options: Mapping) -> str:
    """Return the name of a stage of a finished run; `stg` is a stage name or a number (3 means ``stage3``).

    For SlowFast, the options ``path`` and ``fuse`` choose the pathway and whether to read after the lateral
    connection. Raises UserError if the run has no such stage.
    """
    stages, reading = list(stages), f"/fuse{int(options['fuse'])}/{options['path']}"
    for name in (f"{stg}", f"stage{stg}", f"{stg}{reading}", f"stage{stg}{reading}"):
        if name in stages:
            return name
    near = nearest(str(stg), stages)
    raise UserError(f"stg={stg}: this run has no such stage{near} (stages: {', '.join(stages)})")
