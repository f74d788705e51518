"""How often each place of the picture belongs to an object, over all masks of a data set: its centre bias.

    python misc/estimate_dataset_centerbias.py --root DAVIS/Annotations/480p --dataset davis

Masks are the png files below --root, in sequence folders; whatever is not black is object. Written are
saliency_prior_DATASET.png and, on stdout, the mean size of objects and where their middle is.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from static_dynamic.analysis.vos.segmentation import read_mask, resize_mask
from static_dynamic.analysis.vos.stage_figures import draw_prior
from static_dynamic.command import Options, command
from static_dynamic.datasets.frames import is_image
from static_dynamic.errors import UserError

SIZE = (480, 854)  # height and width that all masks are brought to


@command
def main() -> None:
    """Count and draw."""
    parser = Options(__doc__)
    parser.add_argument(
        "--root", type=Path, default="data/DAVIS/Annotations/480p", help="default: %(default)s"
    )
    parser.add_argument("--dataset", default="davis", help="names the figure (default: %(default)s)")
    parser.add_argument("--out_dir", type=Path, default=".", help="default: here")
    given = parser.parse_args()
    files = sorted(path for path in given.root.rglob("*.png") if is_image(path.name))
    if not files:
        raise UserError(f"{given.root} holds no masks (*.png): give --root FOLDER")
    total = np.zeros(SIZE)
    for file in tqdm(files, unit="mask"):
        total += resize_mask(read_mask(file), SIZE)
    if not total.any():
        raise UserError(f"{given.root}: all {len(files)} masks are empty")
    out = given.out_dir / f"saliency_prior_{given.dataset}.png"
    draw_prior(total / len(files), out, f"{given.dataset}: {len(files)} masks")
    y, x = (np.average((np.arange(n) + 0.5) / n, weights=total.sum(1 - k)) for k, n in enumerate(SIZE))
    print(f"{len(files)} masks; objects fill {100 * total.mean() / len(files):.1f} % of the picture")
    print(f"their middle: {100 * x:.1f} % from the left, {100 * y:.1f} % from the top")
    print(f"figure: {out}")


if __name__ == "__main__":
    sys.exit(main())
