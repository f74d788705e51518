"""Compute class feature pyramids of many clips with one network and one set of options."""

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid, check_label, class_feature_pyramid
from static_dynamic.analysis.explain.class_names import class_names, find_label, names_of_weights
from static_dynamic.analysis.explain.explained_clips import ShownClip
from static_dynamic.analysis.explain.faithfulness import measure_faithfulness
from static_dynamic.analysis.explain.feature_path import FeaturePath, trace_path
from static_dynamic.analysis.explain.kernel_classes import KernelClasses, read_kernel_classes
from static_dynamic.analysis.explain.pyramid_rules import RULES, check_depth, count_classes_and_levels
from static_dynamic.analysis.run.setup import build_network
from static_dynamic.device import choose_device
from static_dynamic.files import sha256
from static_dynamic.models import VideoNetwork

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Explainer:
    """A network, the class to explain, and checked options for computing class feature pyramids."""

    net: VideoNetwork
    model: str
    label: int | None
    names: list[str] | None
    # Keyword arguments of `class_feature_pyramid`.
    options: dict
    # The layers below the classifier; None with rules=original, which does not trace layers.
    path: FeaturePath | None
    # Kinds and unit classes of the kernels; None if ``task.profile`` is not given.
    classes: KernelClasses | None

    def explain(self, clip: ShownClip, positions: NDArray) -> tuple[Pyramid, Tensor, dict]:
        """Explain a clip; return its pyramid, the network's input (3, T, h, w) and a summary as a dict."""
        spec = self.net.input_spec
        video = clip.read(positions, spec, self.options["rules"])
        inputs = self.inputs(video)
        pyramid = class_feature_pyramid(self.net, inputs, self.label, path=self.path, **self.options)
        logits = pyramid.clip.logits
        probability = logits.softmax(dim=0)
        predicted = int(logits.argmax())
        summary = {
            "clip": clip.clip.id,
            "model": self.model,
            "label": pyramid.label,
            "class": self.name(pyramid.label),
            "probability": float(probability[pyramid.label]),
            "prediction": predicted,
            "prediction_class": self.name(predicted),
            "prediction_probability": float(probability[predicted]),
            **self.options,
            "frames": positions.tolist(),
            "kernels": [len(np.unique(child)) for _, child, _ in pyramid.steps],
            "profile": self.classes.origin if self.classes else None,
        }
        if not summary["kernels"][0]:
            strongest = pyramid.clip.class_scores[:, pyramid.label].max()
            message = "%s: no feature of class %s reaches theta=%g; the strongest has %.3f: give a smaller %s"
            log.warning(message, clip.clip.id, summary["class"], pyramid.theta, strongest, "cfp.theta")
        return pyramid, video, summary

    def inputs(self, video: Tensor) -> Tensor | list[Tensor]:
        """Return the network input for one video (3, T, h, w): one tensor, or one tensor per pathway."""
        return self.net.prepare(video[None].to(next(self.net.parameters()).device))

    def faithfulness(
        self, pyramid: Pyramid, blank: Pyramid, video: Tensor, masks: int, seed: int
    ) -> pd.DataFrame:
        """Compare the saliency map of each pyramid level with random masks, by `measure_faithfulness`."""

        @torch.inference_mode()
        def probability(changed: Tensor) -> float:
            return float(self.net(self.inputs(changed))[0].double().softmax(dim=0)[pyramid.label])

        return measure_faithfulness(probability, video, pyramid, blank, masks, seed)

    def blank(self, pyramid: Pyramid) -> Pyramid:
        """Return a copy of a pyramid, with the feature maps of a uniform clip in the mean colour."""
        video = torch.zeros(1, 3, *pyramid.clip.size, device=next(self.net.parameters()).device)
        read = RULES[pyramid.rules](self.net, self.net.prepare(video), self.options["depth"], self.path)
        return replace(pyramid, clip=read)

    def name(self, label: int) -> str:
        """Return the name of a class, or the class number as text if the names are unknown."""
        return self.names[label] if self.names else str(label)


def make_explainer(cfg: DictConfig, options: dict) -> Explainer:
    """Build an Explainer from options; raise UserError if options, class or ``task.profile`` are invalid."""
    net, weights = build_network(cfg)
    path = None
    if options["rules"] == "corrected" or cfg.task.profile:
        path = trace_path(net, net.example_input(partial(torch.empty, device="meta")))
    own_path = path if options["rules"] == "corrected" else None
    classes, levels = count_classes_and_levels(net, own_path)
    check_depth(options["depth"], levels)
    pretrained = weights and (cfg.checkpoint or cfg.model.checkpoint) == "pretrained"
    asset = cfg.model.get("pretrained") if pretrained else None
    names = class_names(cfg.task.names, classes) if cfg.task.names else names_of_weights(asset, classes)
    label = find_label(cfg.task.label, names)
    if label is not None:
        check_label(label, classes)
    profiled = None
    if cfg.task.profile and path:
        model = OmegaConf.to_container(cfg.model, resolve=True)
        identity = {"model": model, "weights_sha256": sha256(weights) if weights else None, "seed": cfg.seed}
        profiled = read_kernel_classes(cfg.task.profile, net, path, identity)
    net.to(choose_device(cfg.device))
    return Explainer(net, cfg.model.name, label, names, options, own_path, profiled)
