"""Estimate how often each pixel position belongs to an object in the masks of a data set (centre bias).

    python misc/estimate_dataset_centerbias.py --root DAVIS/Annotations/480p --dataset davis

Masks are the png files in the sequence folders below --root; every pixel that is not black is object. Writes
the figure saliency_prior_DATASET.png and prints the mean size and the mean centre of the objects.
"""

import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from static_dynamic.analysis.vos.segmentation import read_mask, resize_mask
from static_dynamic.analysis.vos.stage_figures import draw_prior
from static_dynamic.command import Options, command
from static_dynamic.datasets.numbering import is_image
from static_dynamic.errors import UserError

# Height and width to which all masks are resized.
SIZE = (480, 854)


@command
def main() -> None:
    """Compute how often each pixel belongs to an object, and draw these frequencies as an image."""
    parser = Options(__doc__)
    parser.add_argument("--root", type=Path, default="data/DAVIS/Annotations/480p", help="folder of masks")
    parser.add_argument("--dataset", default="davis", help="name for the figure")
    parser.add_argument("--out_dir", type=Path, default=".", help="folder of the figure")
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
    covered = 100 * total.mean() / len(files)
    print(f"{len(files)} masks; objects cover {covered:.1f} % of the image on average")
    print(f"mean centre: {100 * x:.1f} % from the left, {100 * y:.1f} % from the top")
    print(f"figure: {out}")


if __name__ == "__main__":
    sys.exit(main())
