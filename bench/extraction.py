"""What extraction costs beside the bare forward passes of the same views.

    python -m bench.extraction [--rounds N]

Floor: one forward pass a view, and one decode of each frame that a clip shows in a style. Both sides of a
ratio take turns within each round; the ratio of the sums is printed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import list_clips, make_views
from static_dynamic.models import build_model
from static_dynamic.stylize.embedded import prepare

BATCH = 8


def timed(function, *arguments, **options) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=4, help="clips a round")
    arguments = parser.parse_args()
    net = build_model("i3d_inception", checkpoint="pretrained")
    spec = net.input_spec
    root = prepare(configs.row("dataset", "embedded"), configs.row("style", "builtin"))
    dataset = OmegaConf.create({"name": "embedded", "layout": "folder", "root": str(root)})
    clips = list_clips(dataset, (1, 2, 3, 4), arguments.clips)
    views, pairs = make_views(clips.clips, (1, 2, 3, 4), spec.pathways, n_sample_frames=spec.frames)
    stages = {name: {"units": stage.units, "stream": stage.stream} for name, stage in net.stages.items()}
    inputs = torch.randn(BATCH, 3, spec.frames, spec.crop, spec.crop)

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(len(views) // BATCH):
            net(inputs)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            manifest = {"identity": {}, "stages": stages, "skipped_views": []}
            store = Store.create_or_resume(Path(folder), manifest, views, pairs)
            extract(net, clips, views, store, device=torch.device("cpu"), batch_size=BATCH, num_workers=2)

    bare(), whole()  # warm: files in the page cache, kernels chosen
    names = {"bare": bare, "extraction": whole}
    spent = dict.fromkeys(names, 0.0)
    for _ in range(arguments.rounds):
        for name, function in names.items():
            spent[name] += timed(function)
    count = arguments.rounds * len(views)
    print(
        f"i3d_inception, {spec.frames} x {spec.crop} x {spec.crop}, {count} views, "
        f"cpu, {torch.get_num_threads()} threads"
    )
    print(f"bare forward      {count / spent['bare']:6.2f} views/s")
    print(f"extraction        {count / spent['extraction']:6.2f} views/s")
    print(
        f"(a) extraction over bare forward         {spent['extraction'] / spent['bare']:.3f}   (bound 1.15)"
    )


if __name__ == "__main__":
    main()
