"""Write results on video object segmentation to ``save_dir/vos_models`` in Kowal et al.'s file formats."""

from pathlib import Path

from static_dynamic.analysis.outputs.registry import FinishedRun, register
from static_dynamic.analysis.vos.original_writer import write_statistics, write_vos_results


@register("vos_files", order=30, applies=lambda run: run.takes_flow)
def write_vos_files(run: FinishedRun) -> None:
    """Write the dynamic and static correlation of each unit, and the numbers of dimensions of each stage."""
    options = run.options
    folder, name = Path(options.save_dir) / "vos_models", options.model.original_name
    write_statistics(folder, name, options.seed, run.folder, run.estimate)
    lines = write_vos_results(folder, name, options.seed, run.estimate, run.shown, options.joint_encoding)
    print(f"\nresult file in the format of Kowal et al.'s code: {lines}")
