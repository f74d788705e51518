"""Names of blobs in PySlowFast's caffe2 files, and the keys of ``models/slowfast.py`` that they fill.

``t_res4_3_branch2b_bn_riv`` fills ``s4.pathway1_res3.branch2.b_bn.running_var``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch

# layer, without the ``t_`` of the fast pathway -> module; the first that matches the whole name holds
LAYERS = (
    (r"conv1", r"s1.{pathway}_stem.conv"),
    (r"res_conv1_bn", r"s1.{pathway}_stem.bn"),
    (r"res(\d)_(\d+)_(branch1|branch1_bn)", r"s\1.{pathway}_res\2.\3"),
    (r"res(\d)_(\d+)_branch2([abc]|[abc]_bn)", r"s\1.{pathway}_res\2.branch2.\3"),
    (r"nonlocal_conv(\d)_(\d+)_(theta|phi|g|out)", r"s\1.{pathway}_nonlocal\2.conv_\3"),
    (r"nonlocal_conv(\d)_(\d+)_bn", r"s\1.{pathway}_nonlocal\2.bn"),
    # lateral connections are named after the last layer of the fast pathway that they read
    (r"pool1_subsample", r"s1_fuse.conv_f2s"),
    (r"pool1_subsample_bn", r"s1_fuse.bn"),
    (r"res(\d)_\d+_branch2c_bn_subsample", r"s\1_fuse.conv_f2s"),
    (r"res(\d)_\d+_branch2c_bn_subsample_bn", r"s\1_fuse.bn"),
    (r"pred", r"head.projection"),
)
# end of a blob's name -> parameter or buffer; "riv" would say inverse variance, and yet holds the variance
LEAVES = {"w": "weight", "b": "bias", "s": "weight", "rm": "running_mean", "riv": "running_var"}
# what training leaves beside the weights
OPTIMIZER = re.compile(r".*_momentum|lr|model_iter")
BLOB = re.compile(rf"(t_)?(\w+)_({'|'.join(LEAVES)})")


def our_key(blob: str) -> str:
    """Key of a blob; a name that this table lacks stays as it is, so that strict loading reports it."""
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
    """Turn caffe2 blobs (numpy arrays) into tensors under our keys; return any other state dict as it is."""
    if not any(isinstance(value, np.ndarray) for value in state.values()):
        return state
    return {
        our_key(blob): torch.from_numpy(np.array(value))  # copied: what a pickle holds may be read-only
        for blob, value in state.items()
        if not OPTIMIZER.fullmatch(blob)
    }
