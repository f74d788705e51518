"""Split stage names into a position in the network and a reading: which pathway or stream is read there.

``stage3`` has a position only; ``stage3/fuse1/cat`` and ``layer3,mot_stream`` have a position and a reading.
The stages of one reading make one curve over depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from static_dynamic.errors import UserError, nearest


def split_stage(name: str) -> tuple[str, str]:
    """Split a stage name, ``stage3/fuse1/cat`` -> (``stage3``, ``fuse1/cat``); without reading it is ''."""
    position, *reading = re.split("[/,]", name, maxsplit=1)
    return position, reading[0] if reading else ""


def readings(stages: Iterable[str], fuse: bool = True) -> dict[str, list[str]]:
    """Group stages by reading, in depth order.

    SlowFast's stages are read before and after the lateral connection; `fuse` keeps those after
    it, and false those before it.
    """
    found: dict[str, list[str]] = {}
    for stage in stages:
        found.setdefault(split_stage(stage)[1], []).append(stage)
    other = f"fuse{int(not fuse)}/"
    return {name: members for name, members in found.items() if not name.startswith(other)} or found


def find_stage(stg: int | str, stages: Iterable[str], options: Mapping) -> str:
    """Return the stage of a finished run that `stg` means: a name, or a number (3 is ``stage3``).

    Where a position has several readings (SlowFast), the options ``path`` and ``fuse`` choose one.

    Raises
    ------
    UserError
        If the run has no such stage.
    """
    stages, reading = list(stages), f"/fuse{int(options['fuse'])}/{options['path']}"
    for name in (f"{stg}", f"stage{stg}", f"{stg}{reading}", f"stage{stg}{reading}"):
        if name in stages:
            return name
    near = nearest(str(stg), stages)
    raise UserError(f"stg={stg}: this run has no such stage{near} (its stages: {', '.join(stages)})")
