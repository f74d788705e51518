"""Task ``evaluate_vos``: measure how well a network segments the videos of DAVIS 2016."""

import logging
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.analysis.run.identity import code_version, run_folder
from static_dynamic.analysis.run.locks import locked
from static_dynamic.analysis.run.manifest import require_same_run, write_manifest
from static_dynamic.analysis.run.setup import build_network, find_frames, require_fit
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.vos.evaluation import evaluate_sequence, evaluation_identity, sequence_table
from static_dynamic.assets import versions
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Segment the videos of DAVIS with ``cfg.model``; measure region similarity J and boundary accuracy F."""
    if cfg.dataset.get("layout") != "davis" or cfg.dataset.cinematograms:
        raise UserError(f"dataset={cfg.dataset.name} has no masks of objects: give dataset=StylizedDAVIS")
    require_fit(cfg)
    net, weights = build_network(cfg)
    if not net.flow_directions:
        raise UserError(
            f"model={cfg.model.name} does not segment videos: give model=fusionseg, matnet, rtnet or rtnet34"
        )
    frames = find_frames(cfg, net, (0,))
    identity = evaluation_identity(cfg, frames, weights)
    folder = run_folder(cfg, identity, "segmentation")
    device = choose_device(cfg.device)
    net.to(device)

    skipped = dict(frames.skipped)
    manifest = {"identity": identity, "skipped": skipped, "code": code_version(), "versions": versions()}
    with locked(folder), tqdm(total=len(frames.clips), unit="frame") as bar:
        require_same_run(folder, identity)
        write_manifest(folder, manifest)
        for sequence in frames.names:
            try:
                evaluate_sequence(net, frames, sequence, folder / sequence, cfg, device, bar)
            except BadFrames as error:
                if cfg.on_error != "skip":
                    raise
                log.warning("left out: %s (%s)", sequence, error)
                skipped[sequence] = str(error)
                write_manifest(folder, manifest)

    done = [sequence for sequence in frames.names if sequence not in skipped]
    if not done:
        raise UserError(f"no sequence could be segmented; the first error: {next(iter(skipped.values()))}")
    table = sequence_table(folder, done)
    write_table(folder / "sequences.csv", table)
    untrained = " (untrained)" if cfg.model.init == "random" else ""
    left_out = f", {len(skipped)} left out" if skipped else ""
    print(f"{cfg.model.name}{untrained} on {cfg.dataset.name}: {len(done)} sequences{left_out}\n")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print(f"\nwritten to {folder}: sequences.csv, and masks, masks.json, overlay.mp4 of each sequence")
    return folder
