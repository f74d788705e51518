"""Attention heads and neurons of Hugging Face's networks against plain hooks."""

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

from static_dynamic.models import build_model
from tests.models.test_huggingface import save
from tests.models.test_units import inputs_of
from tests.models.toys import clip

# kind of network of Hugging Face -> (kind of units -> end of the layer's path, number of class tokens)
HUGGINGFACE_LAYERS = {
    "Timesformer": ({"heads": "attention.output.dense", "neurons": "output.dense"}, 1),
    "VideoMAE": ({"heads": "attention.output.dense", "neurons": "output.dense"}, 0),
    "Vivit": ({"heads": "attention.o_proj", "neurons": "mlp.fc2"}, 1),
    "VJEPA2": ({"heads": "attention.proj", "neurons": "mlp.fc2"}, 0),
}


@pytest.mark.parametrize("kind", HUGGINGFACE_LAYERS)
def test_networks_of_hugging_face(kind, tmp_path):
    save(tmp_path, kind)
    layers, classes = HUGGINGFACE_LAYERS[kind]
    plain = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained")
    x = clip(plain)
    inputs = inputs_of(plain, x)
    for units, layer in layers.items():
        net = build_model("huggingface", network=str(tmp_path), checkpoint="pretrained", units=units)
        rows = net.read(x)
        assert len(rows) == (6 if (kind, units) == ("Timesformer", "heads") else 3)
        assert {stage.heads for stage in net.stages.values()} == {2 if units == "heads" else None}
        for stage in rows:
            block, _, part = stage.partition("/")
            tokens = inputs[f"net.{block}.{part + layer[9:] if part else layer}"]
            tokens = tokens[:, 0 if part.startswith("temporal") else classes :]
            expected = torch.stack([one.flatten(0, 1).mean(dim=0) for one in tokens.chunk(2)])
            torch.testing.assert_close(rows[stage], expected, atol=1e-5, rtol=1e-5)
