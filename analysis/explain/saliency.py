"""Explain predictions: which kernels a network leans on (Class Feature Pyramids), as graphs, tubes and a
page; beside a profile, how many of them are static or dynamic."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from analysis.explain.class_feature_pyramids import Pyramid, check_label, check_options, class_feature_pyramid
from analysis.explain.class_names import class_names, find_label, names_of_weights
from analysis.explain.explained_clips import (
    ShownClip,
    find_shown_clips,
    pictures_of,
    require_clips,
    skip_or_raise,
)
from analysis.explain.explained_files import (
    SUMMARY,
    clip_folders,
    format_clip,
    replaced_folder,
    write_graphs,
    write_pictures,
    write_shares,
)
from analysis.explain.feature_path import FeaturePath, trace_path
from analysis.explain.kernel_classes import KernelClasses, count_kernels, read_kernel_classes
from analysis.explain.pyramid_rules import RULES, check_depth, count_classes, count_levels
from analysis.explain.tubes import VIDEOS
from analysis.profile import build_network, choose_device
from analysis.store import to_json
from configs import UserError, nearest
from configs.files import file_name, sha256, write_text
from datasets.frames import BadFrames
from models import VideoNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explainer:
    """A network and what is asked of it, checked before anything is computed."""

    net: VideoNetwork
    model: str
    label: int | None
    names: list[str] | None
    options: dict  # of `class_feature_pyramid`
    path: FeaturePath | None  # None with the original's rules
    classes: KernelClasses | None

    def explain(self, clip: ShownClip, positions: NDArray) -> tuple[Pyramid, NDArray[np.uint8], dict]:
        """The pyramid of a clip, its frames as the network sees them, and what there is to say."""
        spec = self.net.input_spec
        video = clip.read(positions, spec)
        inputs = self.net.prepare(video[None].to(next(self.net.parameters()).device))
        pyramid = class_feature_pyramid(self.net, inputs, self.label, path=self.path, **self.options)
        logits = pyramid.clip.logits
        probability = logits.softmax(dim=0)
        said = int(logits.argmax())
        summary = {
            "clip": clip.clip.id,
            "model": self.model,
            "label": pyramid.label,
            "class": self.name(pyramid.label),
            "probability": float(probability[pyramid.label]),
            "prediction": said,
            "prediction_class": self.name(said),
            "prediction_probability": float(probability[said]),
            **self.options,
            "frames": positions.tolist(),
            "kernels": [len(np.unique(child)) for _, child, _ in pyramid.steps],
            "profile": self.classes.origin if self.classes else None,
        }
        if not summary["kernels"][0]:
            log.warning(
                "%s: no feature of class %s reaches theta=%g, the strongest has %.3f: "
                "give a smaller cfp.theta",
                clip.clip.id,
                self.name(pyramid.label),
                pyramid.theta,
                pyramid.clip.class_scores[:, pyramid.label].max(),
            )
        return pyramid, pictures_of(video, spec), summary

    def blank(self, pyramid: Pyramid) -> Pyramid:
        """The same kernels, and what they show of a clip of plain mean colour."""
        video = torch.zeros(1, 3, *pyramid.clip.size, device=next(self.net.parameters()).device)
        read = RULES[pyramid.rules](self.net, self.net.prepare(video), self.options["depth"], self.path)
        return replace(pyramid, clip=read)

    def name(self, label: int) -> str:
        """A class as people call it."""
        return self.names[label] if self.names else str(label)


def run(cfg: DictConfig) -> Path:
    """Explain ``task.input``, or the clips of ``cfg.dataset``; return the folder that was written to."""
    options = OmegaConf.to_container(cfg.cfp)
    check_options(**options)
    require_drawing(cfg.task)
    clips = find_shown_clips(cfg)
    root = Path(str(cfg.task.outdir or Path(cfg.save_dir) / "saliency" / file_name(cfg.model.name)))
    folders = clip_folders(root, [clip.clip.id for clip in clips])
    explainer = make_explainer(cfg, options)
    spec = explainer.net.input_spec
    pictures = len(clips) == 1 if cfg.task.pictures is None else cfg.task.pictures
    counts, done = [], []
    bar = tqdm(clips, desc="explain", unit="clip", delay=2, disable=len(clips) == 1)
    for clip, folder in zip(bar, folders, strict=True):
        positions = clip.positions(spec, cfg.n_sample_frames, cfg.resample_fps)
        try:
            pyramid, frames, summary = explainer.explain(clip, positions)
        except BadFrames as error:
            skip_or_raise(cfg.on_error, clip.clip.id, error)
            continue
        done.append(folder)
        with replaced_folder(folder) as temporary:
            write_graphs(temporary, pyramid, explainer.classes)
            if pictures:
                blank = explainer.blank(pyramid)
                drawn = (explainer.classes, cfg.task.kernels, cfg.task.video)
                write_pictures(temporary, pyramid, blank, frames, summary, *drawn)
            write_text(temporary / SUMMARY, to_json(summary))
        if explainer.classes:
            about = {"clip": clip.clip.id, "cluster": clip.clip.cluster or clip.clip.id}
            own = count_kernels(pyramid, explainer.classes)
            counts.append(own.assign(**about, label=explainer.name(pyramid.label)))
        if len(clips) == 1:
            print(format_clip(pyramid, summary))
    require_clips(done, "task=saliency")
    if explainer.classes:
        write_shares(root, pd.concat(counts, ignore_index=True), explainer.classes, cfg.n_boot, cfg.seed)
    print(f"\nwritten to {done[0] if len(clips) == 1 else root}")
    return root


def require_drawing(task: DictConfig) -> None:
    """Refuse values of the task's own options that nothing can be drawn by."""
    if task.video not in (*VIDEOS, "none"):
        known = (*VIDEOS, "none")
        raise UserError(
            f"task.video={task.video}{nearest(str(task.video), known)} (known: {', '.join(known)})"
        )
    if not isinstance(task.kernels, int) or task.kernels < 1:
        raise UserError(f"task.kernels={task.kernels}: a whole number from 1 on is expected")


def make_explainer(cfg: DictConfig, options: dict) -> Explainer:
    """Build the network and check what is asked of it: nothing has gone through it yet.

    Raises
    ------
    UserError
        A network without 3D convolutions, no such class or depth, or a profile of another network.
    """
    net, weights = build_network(cfg)
    path = None
    if options["rules"] == "corrected" or cfg.task.profile:
        path = trace_path(net, net.example_input(partial(torch.empty, device="meta")))
    classes = count_classes(net, options["rules"], path)
    check_depth(options["depth"], count_levels(net, options["rules"], path))
    asset = cfg.model.get("pretrained") if weights and used_pretrained(cfg) else None
    names = class_names(cfg.task.names, classes) if cfg.task.names else names_of_weights(asset, classes)
    label = find_label(cfg.task.label, names)
    if label is not None:
        check_label(label, classes)
    profiled = None
    if cfg.task.profile:
        model = OmegaConf.to_container(cfg.model, resolve=True)
        identity = {"model": model, "weights_sha256": sha256(weights) if weights else None, "seed": cfg.seed}
        profiled = read_kernel_classes(cfg.task.profile, net, path, identity)
    net.to(choose_device(cfg.device))
    own_path = path if options["rules"] == "corrected" else None
    return Explainer(net, cfg.model.name, label, names, options, own_path, profiled)


def used_pretrained(cfg: DictConfig) -> bool:
    """Whether the weights are those that the model's row names."""
    return (cfg.checkpoint or cfg.model.checkpoint) == "pretrained"
