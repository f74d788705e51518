"""Decide whether a run stores class scores, and whether labels of the data set fit these classes."""

from omegaconf import DictConfig

from static_dynamic.analysis.run.manifest import LOGITS
from static_dynamic.datasets import ClipList
from static_dynamic.models import VideoNetwork
from static_dynamic.models.cost import operations_after_stages

# Class scores are stored if at most this share (or number) of operations comes after the deepest stage.
MOST_AFTER_STAGES, FEW_OPERATIONS = 0.03, 1e7


def class_scores_of(cfg: DictConfig, net: VideoNetwork, clips: ClipList, trained: bool) -> dict:
    """Return the entry ``class_scores`` of a run's manifest.

    ``classes`` is the number of class scores. ``labelled`` says whether the class numbers of the data set are
    those of the network. A network whose class scores are not read has the single entry ``reason``.
    """
    if not net.classes:
        return {"reason": "the network has no class scores"}
    if LOGITS in net.stages:
        return {"reason": f"a stage has the name {LOGITS}, which class scores need"}
    after, total = operations_after_stages(net)
    if after > max(MOST_AFTER_STAGES * total, FEW_OPERATIONS):
        return {"reason": f"{after / total:.0%} of the network's operations come after the deepest stage"}
    return {"classes": net.classes, "labelled": same_classes(cfg, net, clips, trained)}


def same_classes(cfg: DictConfig, net: VideoNetwork, clips: ClipList, trained: bool) -> bool:
    """Return whether data set and network seem to number the same classes in the same way.

    A trained classifier, the data set's option ``num_classes`` and the annotations must have equally many
    classes. The annotations may be a list of some classes only, numbered in another way than all classes.
    """
    counts = (cfg.dataset.get("num_classes"), clips.classes)
    return trained and not cfg.drop_head and all(count == net.classes for count in counts)
