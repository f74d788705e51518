"""Write the numbers of dynamic and static dimensions of one stage in Kowal et al.'s file format.

``MODEL_dim_est.csv`` holds the numbers of dynamic, static and residual dimensions of the stage. With
``joint_encoding``, a chart shows how many units are dynamic, static, joint or residual.
"""

import shutil
from pathlib import Path

from static_dynamic.analysis.estimate.tables import dimensions_file
from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.show import figures
from static_dynamic.analysis.show.text import format_classes, format_dimensions
from static_dynamic.files import atomic_path, file_name


@register("dimensions", order=20, applies=lambda run: not run.takes_flow)
def write_dimensions(run: FinishedRun) -> None:
    """Write how many dimensions of a stage are dynamic or static; optionally, count its units per class."""
    options, layer, save_dir = run.options, run.layer, Path(run.options.save_dir)
    model = file_name(options.model.name)
    print(f"\n{run.stage}:\n{format_dimensions(layer)}")
    with atomic_path(save_dir / f"{model}_dim_est.csv") as temporary:
        shutil.copyfile(dimensions_file(run.folder, run.stage), temporary)
    if not options.joint_encoding:
        return
    print(format_classes(layer))
    # As in Kowal et al.'s code, the file name contains the pathway (SlowFast) or the stage (other networks).
    part = (
        f"{options.dataset.name}_{options.path}"
        if "slowfast" in options.model.name
        else f"stg_{options.stg}_{options.dataset.name}"
    )
    name = f"thresh_{options.joint_encoding_thresh}_{model}_{part}.png"
    figures.draw_classes(layer, save_dir / "joint_encode_plots_unique" / name, f"{run.name}, {run.stage}")
