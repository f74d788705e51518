"""Find the state dict keys of a network's classifier, which a checkpoint may lack."""

from collections.abc import Mapping

from torch import Tensor

from static_dynamic.models.stages import VideoNetwork, run_on_meta


def head_keys(net: VideoNetwork) -> set[str]:
    """Return the state dict keys of the modules that start only after the deepest stage was read.

    These are the classifier, and normalisation before it. A network without class scores has none. Modules
    that never start do not count, because other modules may use their weights.
    """
    if not getattr(net, "stages", None) or net.classes is None:
        return set()
    waiting = {tap.module for stage in net.stages.values() for tap in stage.taps}
    # modules that started before the deepest stage was read
    before: set[str] = set()
    # modules that started after the deepest stage was read
    after: set[str] = set()
    handles = []
    for name, module in net.named_modules():
        handles += [
            module.register_forward_pre_hook(
                lambda *_, name=name: (before if waiting else after).add(name), prepend=True
            ),
            module.register_forward_hook(lambda *_, name=name: waiting.discard(name)),
        ]
    try:
        run_on_meta(net)
    finally:
        for handle in handles:
            handle.remove()
    late = {name.removeprefix(net.prefix) for name in after - before}
    return {key for key in net.state_dict() if key.rpartition(".")[0] in late}


def foreign_head(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return the classifier's keys if two state dicts differ only in the number of classes, else []."""
    keys = [k for k, v in own.items() if k in state and state[k].shape != v.shape]
    counts = {(len(own[k]), len(state[k])) for k in keys if own[k].dim() == state[k].dim() > 0}
    alike = all(own[k].shape[1:] == state[k].shape[1:] for k in keys)
    return keys if own.keys() == state.keys() and alike and len(counts) == 1 else []
