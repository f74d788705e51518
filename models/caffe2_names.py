"""Translate the names of arrays ("blobs") in PySlowFast's caffe2 files to the keys of ``models/slowfast.py``.

For example ``t_res4_3_branch2b_bn_riv`` becomes ``s4.pathway1_res3.branch2.b_bn.running_var``.
"""

import re
from collections.abc import Mapping

import numpy as np
import torch

# Pattern of a caffe2 layer's name, without the fast pathway's prefix ``t_`` -> path of the module.
LAYERS = (
    (r"conv1", r"s1.{pathway}_stem.conv"),
    (r"res_conv1_bn", r"s1.{pathway}_stem.bn"),
    (r"res(\d)_(\d+)_(branch1|branch1_bn)", r"s\1.{pathway}_res\2.\3"),
    (r"res(\d)_(\d+)_branch2([abc]|[abc]_bn)", r"s\1.{pathway}_res\2.branch2.\3"),
    (r"nonlocal_conv(\d)_(\d+)_(theta|phi|g|out)", r"s\1.{pathway}_nonlocal\2.conv_\3"),
    (r"nonlocal_conv(\d)_(\d+)_bn", r"s\1.{pathway}_nonlocal\2.bn"),
    # a lateral connection is named after the preceding layer of the fast pathway, plus "_subsample"
    (r"pool1_subsample", r"s1_fuse.conv_f2s"),
    (r"pool1_subsample_bn", r"s1_fuse.bn"),
    (r"res(\d)_\d+_branch2c_bn_subsample", r"s\1_fuse.conv_f2s"),
    (r"res(\d)_\d+_branch2c_bn_subsample_bn", r"s\1_fuse.bn"),
    (r"pred", r"head.projection"),
)
# Last part of a caffe2 array's name -> name in the state dict; "riv" is the variance itself, not an inverse.
LEAVES = {"w": "weight", "b": "bias", "s": "weight", "rm": "running_mean", "riv": "running_var"}
# Names of caffe2 arrays that hold the optimizer's state; these arrays are not loaded.
OPTIMIZER = re.compile(r".*_momentum|lr|model_iter")
BLOB = re.compile(rf"(t_)?(\w+)_({'|'.join(LEAVES)})")


def our_key(blob: str) -> str:
    """Translate a blob's name to a state dict key; keep an unknown name, so that strict loading fails."""
    parts = BLOB.fullmatch(blob)
    if parts is None:
        return blob
    fast, layer, leaf = parts.groups()
    for pattern, module in LAYERS:
        match = re.fullmatch(pattern, layer)
        if match:
            return f"{match.expand(module).format(pathway=f'pathway{int(bool(fast))}')}.{LEAVES[leaf]}"
    return blob


def from_caffe2(state: Mapping) -> Mapping:
    """Turn a dict of caffe2 blobs (numpy arrays) into a state dict; return any other dict unchanged."""
    if not any(isinstance(value, np.ndarray) for value in state.values()):
        return state
    return {
        # copy the array with np.array, because torch needs writable arrays
        our_key(blob): torch.from_numpy(np.array(value))
        for blob, value in state.items()
        if not OPTIMIZER.fullmatch(blob)
    }
