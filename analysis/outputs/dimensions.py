"""Write the dimensions of one stage to ``save_dir`` in the file format of Kowal et al.'s code.

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
    """Print and write how many dimensions, and how many units, of one stage are dynamic or static."""
    options, layer, save_dir = run.options, run.layer, Path(run.options.save_dir)
    model = file_name(options.model.name)
    print(f"\n{run.stage}:\n{format_dimensions(layer)}")
    with atomic_path(save_dir / f"{model}_dim_est.csv") as temporary:
        shutil.copyfile(dimensions_file(run.folder, run.stage), temporary)
    if not options.joint_encoding:
        return
    print(format_classes(layer))
    # In Kowal et al.'s code, the file name has the pathway for SlowFast, and the stage for other networks.
    part = (
        f"{options.dataset.name}_{options.path}"
        if "slowfast" in options.model.name
        else f"stg_{options.stg}_{options.dataset.name}"
    )
    name = f"thresh_{options.joint_encoding_thresh}_{model}_{part}.png"
    figures.draw_classes(layer, save_dir / "joint_encode_plots_unique" / name, f"{run.name}, {run.stage}")
