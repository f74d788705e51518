"""Convert a checkpoint to a safetensors file with the parameter names of this project's network.

    python misc/convert_checkpoint.py I3D_8x8_R50.pkl i3d.safetensors --model i3d

Reads SlowFast .pyth, caffe2 .pkl, TimeSformer and PyTorchVideo .pyth, plain state dicts and safetensors.
"""

import sys
from pathlib import Path

from safetensors.torch import save_file

from static_dynamic.command import Options, command, positive
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path
from static_dynamic.models import build_model, list_models


@command
def main() -> None:
    """Convert one checkpoint file to safetensors."""
    parser = Options(__doc__)
    parser.add_argument("checkpoint", type=Path, help="file to convert")
    parser.add_argument("output", type=Path, help="file to write; must end in .safetensors")
    parser.add_argument("--model", required=True, help=", ".join(list_models()))
    classes = "number of classes in the checkpoint (default: the model's)"
    parser.add_argument("--num_classes", type=positive, help=classes)
    given = parser.parse_args()
    if given.output.suffix != ".safetensors":
        raise UserError(f"{given.output}: the output file name must end in .safetensors")
    net = build_model(given.model, num_classes=given.num_classes, checkpoint=given.checkpoint)
    with atomic_path(given.output) as temporary:
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, temporary)
    print(f"{given.output}: {len(net.state_dict())} tensors of {given.model}")


if __name__ == "__main__":
    sys.exit(main())
