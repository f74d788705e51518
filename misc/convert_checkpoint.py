"""Convert a checkpoint to a safetensors file with the parameter names of this project's network.

    python misc/convert_checkpoint.py I3D_8x8_R50.pkl i3d.safetensors --model i3d

Reads SlowFast .pyth, caffe2 .pkl, TimeSformer and PyTorchVideo .pyth, SlowOnly, X3D and TimeSformer of
mmaction2, safetensors, and state dicts, also of wrapped networks (torch.compile, Lightning, ...).
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
    entry = "entry or key prefix of the weights, such as model_ema (default: the weights that fit)"
    parser.add_argument("--checkpoint_key", help=entry)
    head = "accept a checkpoint without classifier; the classifier that is written is random"
    parser.add_argument("--drop_head", action="store_true", help=head)
    given = parser.parse_args()
    if given.output.suffix != ".safetensors":
        raise UserError(f"{given.output}: the output file name must end in .safetensors")
    net = build_model(
        given.model,
        num_classes=given.num_classes,
        checkpoint=given.checkpoint,
        checkpoint_key=given.checkpoint_key,
        drop_head=given.drop_head,
    )
    with atomic_path(given.output) as temporary:
        save_file({key: value.contiguous() for key, value in net.state_dict().items()}, temporary)
    print(f"{given.output}: {len(net.state_dict())} tensors of {given.model}")


if __name__ == "__main__":
    sys.exit(main())
