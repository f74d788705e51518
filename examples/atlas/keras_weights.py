"""Read Keras weights (``.weights.h5``), place them in torch modules, and initialise modules as Keras does."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from static_dynamic.assets import fetch
from static_dynamic.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv3d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm3d)
Arrays = Mapping[str, NDArray]


def variables(module: nn.Module) -> list[str]:
    """Return the torch names of the weights of a layer, in the order in which Keras numbers them."""
    if isinstance(module, NORMS):
        return ["weight", "bias", "running_mean", "running_var"]
    return ["weight"] if getattr(module, "bias", None) is None else ["weight", "bias"]


def to_torch(module: nn.Module, array: NDArray) -> torch.Tensor:
    """Permute the axes of a Keras weight to those of the torch layer `module`.

    Kernels of convolutions have the axes (space, in, out) in Keras and (out, in, space) in torch; for
    transposed convolutions, "in" and "out" swap their places in both. A two-dimensional Keras convolution
    becomes a three-dimensional torch convolution over one frame.
    """
    tensor = torch.from_numpy(array.astype(np.float32))
    if isinstance(module, CONVOLUTIONS) and tensor.ndim > 1:
        tensor = tensor.permute(-1, -2, *range(tensor.ndim - 2))
        two_dimensional = isinstance(module, nn.Conv3d) and tensor.ndim == 4
        return tensor.unsqueeze(2) if two_dimensional else tensor
    return tensor.T if isinstance(module, nn.Linear) and tensor.ndim > 1 else tensor


def place(net: nn.Module, layers: Mapping[str, str], arrays: Arrays) -> None:
    """Load Keras weights into `net`; every array is used exactly once, and every weight gets one array.

    `layers` maps the path of each torch layer to the path of the layer in the file. Raises UserError if an
    array is missing or left over, or if a shape differs.
    """
    own = net.state_dict()
    state = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    unused = dict(arrays)
    for path, layer in layers.items():
        module = net.get_submodule(path)
        for number, name in enumerate(variables(module)):
            source, key = f"{layer}/vars/{number}", f"{path}.{name}"
            if source not in unused:
                raise UserError(f"the weights {source} are missing, or are used twice")
            state[key] = to_torch(module, unused.pop(source))
            if state[key].shape != own[key].shape:
                raise UserError(
                    f"the weights {source} have the shape {tuple(state[key].shape)} instead of "
                    f"{tuple(own[key].shape)}"
                )
    if unused:
        raise UserError(f"{len(unused)} weights are left over, such as {min(unused)}")
    net.load_state_dict(state)


def read_weights(asset: str) -> dict[str, NDArray]:
    """Return all arrays of the ``.weights.h5`` file of an asset, by their path in the file."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("Keras weights need the package h5py: pip install h5py") from error
    arrays: dict[str, NDArray] = {}

    def collect(path: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[path] = item[()]

    with h5py.File(fetch(asset), "r", locking=False) as file:
        file.visititems(collect)
    return arrays


def initialise(net: nn.Module) -> None:
    """Draw random weights as Keras does by default: Glorot's uniform distribution, and biases of 0."""
    for module in net.modules():
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def filled(net: nn.Module, network: str, weights: str | None, layers: Mapping[str, str]) -> nn.Module:
    """Return `net` with the weights of the asset ``open_rppg_NETWORK_WEIGHTS``, or with random weights."""
    if weights is None:
        initialise(net)
    else:
        place(net, layers, read_weights(f"open_rppg_{network}_{weights}"))
    return net.eval()
