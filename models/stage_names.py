"""Names of stages, taken apart: where in the network, and which of its readings there.

``stage3`` is a place; ``stage3/fuse1/cat`` and ``layer3,mot_stream`` are a place and a reading (a pathway, a
stream). The stages of one reading make one curve over depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from static_dynamic.errors import UserError, nearest


def split_stage(name: str) -> tuple[str, str]:
    """Place and reading of a stage: ``stage3/fuse1/cat`` -> (``stage3``, ``fuse1/cat``); no reading is ''."""
    place, *rest = re.split("[/,]", name, maxsplit=1)
    return place, rest[0] if rest else ""


def readings(stages: Iterable[str], fuse: bool = True) -> dict[str, list[str]]:
    """Stages by reading, in depth order.

    Where a pathway is read both before and after its lateral fusion (SlowFast), `fuse` says which counts.
    """
    found: dict[str, list[str]] = {}
    for stage in stages:
        found.setdefault(split_stage(stage)[1], []).append(stage)
    other = f"fuse{int(not fuse)}/"
    return {name: members for name, members in found.items() if not name.startswith(other)} or found


def find_stage(stg: int | str, stages: Iterable[str], options: Mapping) -> str:
    """Return the stage of a finished run that ``stg`` means: a name, or a number (3 is ``stage3``).

    Where one place is read in several ways (SlowFast), the options ``path`` and ``fuse`` choose.

    Raises
    ------
    UserError
        The run has no such stage.
    """
    stages, reading = list(stages), f"/fuse{int(options['fuse'])}/{options['path']}"
    for name in (f"{stg}", f"stage{stg}", f"{stg}{reading}", f"stage{stg}{reading}"):
        if name in stages:
            return name
    near = nearest(str(stg), stages)
    raise UserError(f"stg={stg}: this run has no such stage{near} (its stages: {', '.join(stages)})")
