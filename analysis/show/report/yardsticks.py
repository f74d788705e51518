"""Find reference values for a run's report: variance parts of hand-made encoders on the same videos."""

from pathlib import Path
from typing import NamedTuple

from static_dynamic.analysis.estimate.tables import read_layers
from static_dynamic.analysis.run.arrays import STATUS_NAME
from static_dynamic.analysis.run.manifest import has_run, read_manifest
from static_dynamic.analysis.show.figure_style import PART_COLOURS
from static_dynamic.analysis.show.parts import has_parts
from static_dynamic.errors import UserError

YARDSTICK = "yardstick"
# Stage of the yardstick network, and the variance part for which the stage's value is the reference.
REFERENCES = (("velocity", "motion"), ("layout", "content"), ("colour", "appearance"))


class Reference(NamedTuple):
    """Reference value in percent, which a chart of the report shows as a horizontal line."""

    label: str
    value: float
    colour: str


def references(folder: Path, manifest: dict) -> list[Reference]:
    """Return parts (%) of the hand-made encoders, from a ``model=yardstick`` run on the same videos.

    Such a run is searched for where the program puts it by default: in
    ``save_dir/yardstick/DATASET``, if `folder` is ``save_dir/MODEL/DATASET/RUN``.
    """
    identity, (of_dataset, _, save_dir, *_) = manifest["identity"], (*folder.resolve().parents, *[Path()] * 3)
    if identity["model"]["name"] == YARDSTICK:
        return []
    for other in sorted((save_dir / YARDSTICK / of_dataset.name).glob("*")):
        try:
            if not has_run(other) or not (other / STATUS_NAME).exists():
                continue
            theirs = read_manifest(other)["identity"]
            if any(theirs.get(key) != identity.get(key) for key in ("dataset", "styles")):
                continue
            layers = read_layers(other)
        except UserError:  # skip runs that are unfinished or damaged
            continue
        if has_parts(layers):
            return [
                Reference(f"{stage} (yardstick)", 100 * float(layers.loc[stage, part]), PART_COLOURS[part])
                for stage, part in REFERENCES
                if stage in layers.index
            ]
    return []
