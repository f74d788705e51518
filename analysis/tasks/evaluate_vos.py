"""Task ``evaluate_vos``: how well a network segments DAVIS."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.analysis.run.identity import code_version, run_folder
from static_dynamic.analysis.run.setup import build_network, require_fit
from static_dynamic.analysis.run.store import locked, to_json
from static_dynamic.analysis.vos.evaluation import (
    evaluate_sequence,
    evaluation_identity,
    require_same_run,
    sequence_table,
)
from static_dynamic.assets import versions
from static_dynamic.datasets.davis import list_davis
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.device import choose_device
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, write_text
from static_dynamic.models.twostream import TwoStreamNetwork

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> Path:
    """Segment ``cfg.dataset`` with ``cfg.model`` and measure it; return the run folder."""
    if cfg.dataset.get("layout") != "davis" or cfg.dataset.cinematograms:
        raise UserError(
            f"dataset={cfg.dataset.name} has no masks: task=evaluate_vos needs --dataset StylizedDAVIS"
        )
    require_fit(cfg)
    net, weights = build_network(cfg)
    if not isinstance(net, TwoStreamNetwork):
        raise UserError(f"model={cfg.model.name} segments nothing: give fusionseg, matnet, rtnet or rtnet34")
    clips = list_davis(
        cfg.dataset,
        (0,),
        both_flows=net.channels["Flow"] > net.channels["Image"],
        frames_at_once=net.input_spec.pathways["Image"],
        on_error=cfg.on_error,
    )
    identity = evaluation_identity(cfg, clips, weights)
    folder = run_folder(cfg, identity, "segmentation")
    device = choose_device(cfg.device)
    net.to(device)
    skipped = dict(clips.skipped)
    with locked(folder), tqdm(total=len(clips.clips), unit="frame") as bar:
        require_same_run(folder, identity)
        manifest = {"identity": identity, "skipped": skipped, "code": code_version(), "versions": versions()}
        write_text(folder / "manifest.json", to_json(manifest))
        for sequence in clips.names:
            try:
                evaluate_sequence(net, clips, sequence, folder / sequence, cfg, device, bar)
            except BadFrames as fault:
                if cfg.on_error != "skip":
                    raise
                log.warning("left out: %s (%s)", sequence, fault)
                skipped[sequence] = str(fault)
                write_text(folder / "manifest.json", to_json(manifest))
    done = [sequence for sequence in clips.names if sequence not in skipped]
    if not done:
        raise UserError(f"no sequence could be measured; the first: {next(iter(skipped.values()))}")
    table = sequence_table(folder, done)
    with atomic_path(folder / "sequences.csv") as temporary:
        table.to_csv(temporary, index=False)
    untrained = " (untrained)" if cfg.model.init == "random" else ""
    left_out = f", {len(skipped)} left out" if skipped else ""
    print(f"{cfg.model.name}{untrained} on {cfg.dataset.name}: {len(done)} sequences{left_out}\n")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    print(f"\nwritten to {folder}: sequences.csv, and of each sequence masks, masks.json, overlay.mp4")
    return folder
