"""What a run on disk ends in: tables, figures, the report, and the original's files."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from static_dynamic.analysis.show import figures, text
from static_dynamic.analysis.estimate import tables
from static_dynamic.analysis.estimate.bootstrap import RunEstimate, estimate_run
from static_dynamic.analysis.show.report.page import write_report
from static_dynamic.analysis.run.store import read_manifest
from static_dynamic.analysis.estimate.variance import estimate_variance
from static_dynamic.analysis.vos.outputs import write_statistics, write_vos_results
from static_dynamic.files import atomic_path, file_name
from static_dynamic.models import VideoNetwork
from static_dynamic.models.twostream import TwoStreamNetwork


def conclude(cfg: DictConfig, folder: Path, net: VideoNetwork) -> None:
    """Tables and figures of a run that is on disk."""
    stage = net.stage_name(cfg.stg, cfg.path, cfg.fuse)
    result = estimate_run(
        folder,
        cfg.n_boot,
        cfg.seed,
        threshold=cfg.joint_encoding_thresh,
        n_permutations=cfg.n_permutations,
        progress=True,
    )
    write_results(cfg, folder, net, result, stage)
    if isinstance(net, TwoStreamNetwork):
        write_original_files(cfg, folder, net, result)
    shuffled = cfg.app_shuffle and not cfg.use_normal_app and not isinstance(net, TwoStreamNetwork)
    every_view = cfg.pairs == "factorial" and shuffled
    if every_view and read_manifest(folder)["counts"]["clips"] > 1:
        write_variance(cfg, folder, net)
    write_report(folder)
    print(f"\nwritten to {folder}: report.html, layers.csv, units.parquet, profile.png, ...")


def write_results(cfg: DictConfig, folder: Path, net: VideoNetwork, result: RunEstimate, stage: str) -> None:
    """Tables and figures into the run folder; the table on stdout; the original's files below
    ``save_dir``."""
    tables.write_tables(folder, result)
    shown = net.shown_stages(cfg.path, cfg.fuse)
    layers = result.layers.set_index("stage").loc[shown].reset_index()
    untrained = " (untrained)" if cfg.model.init == "random" else ""
    title = f"{cfg.model.name}{untrained} on {cfg.dataset.name}"
    figures.draw_profile(layers, folder / "profile.png", title)
    print(text.format_layers(layers if cfg.stg is None else layers[layers["stage"] == stage], title))
    if isinstance(net, TwoStreamNetwork):
        return  # the original's files of these networks hold every stage

    row = result.layers.set_index("stage").loc[stage]
    print(f"\n{stage}:\n{text.format_dimensions(row)}")
    copy = Path(cfg.save_dir) / f"{file_name(cfg.model.name)}_dim_est.csv"
    with atomic_path(copy) as temporary:
        shutil.copyfile(tables.dimensions_file(folder, stage), temporary)
    if cfg.joint_encoding:
        print(text.format_classes(row))
        # the original's name: with the path for SlowFast, with the stage for the others
        part = (
            f"{cfg.dataset.name}_{cfg.path}"
            if "slowfast" in cfg.model.name
            else f"stg_{cfg.stg}_{cfg.dataset.name}"
        )
        name = f"thresh_{cfg.joint_encoding_thresh}_{file_name(cfg.model.name)}_{part}.png"
        figures.draw_classes(
            row, Path(cfg.save_dir) / "joint_encode_plots_unique" / name, f"{title}, {stage}"
        )


def write_original_files(cfg: DictConfig, folder: Path, net: VideoNetwork, result: RunEstimate) -> None:
    """The original's files of video object segmentation, below ``save_dir/vos_models``."""
    place, name = Path(cfg.save_dir) / "vos_models", cfg.model.original_name
    write_statistics(place, name, cfg.seed, folder, result)
    lines = write_vos_results(
        place,
        name,
        cfg.seed,
        result,
        net.shown_stages(cfg.path, cfg.fuse),
        cfg.joint_encoding,
    )
    print(f"\nthe original's lines: {lines}")


def write_variance(cfg: DictConfig, folder: Path, net: VideoNetwork) -> None:
    """Decompose the variance of a factorial run: csv and parquet, figure, and the shares on stdout."""
    estimate = estimate_variance(folder, cfg.n_boot, cfg.seed, progress=True)
    tables.write_variance(folder, estimate)
    layers = estimate.layers[estimate.layers["stage"].isin(net.shown_stages(cfg.path, cfg.fuse))]
    figures.draw_variance(layers, folder / "variance.png", f"{cfg.model.name} on {cfg.dataset.name}")
    if cfg.stg is not None:
        layers = layers[layers["stage"] == net.stage_name(cfg.stg, cfg.path, cfg.fuse)]
    print("\nvariance of units by source (%; intervals in variance_layers.csv)\n")
    print(text.format_variance(layers))
