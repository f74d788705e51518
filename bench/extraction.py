"""Measure the overhead of extraction: its time relative to bare forward passes over the same views.

    python -m bench.extraction [--rounds N]

Extraction includes decoding, preprocessing, reading all stages and writing. Both sides run in each round,
so that other work on the machine affects both. The ratio of the summed times is printed. It cannot be below
1, because each view needs one forward pass.
"""

from __future__ import annotations

import sys
import tempfile
import time

import torch

from bench.inputs import STYLES, embedded_clips, new_store, stages_of
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.command import Options, command
from static_dynamic.datasets import make_views
from static_dynamic.models import build_model

BATCH = 8


@command
def main() -> None:
    """Measure and print."""
    parser = Options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=4, help="clips per round")
    arguments = parser.parse_args()
    net = build_model("i3d_inception", checkpoint="pretrained")
    spec = net.input_spec
    clips = embedded_clips(arguments.clips)
    views, pairs = make_views(clips.clips, STYLES, spec.pathways, n_sample_frames=spec.frames)
    inputs = torch.randn(BATCH, 3, spec.frames, spec.crop, spec.crop)

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(len(views) // BATCH):
            net(inputs)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = new_store(folder, stages_of(net), views, pairs)
            extract(net, clips, views, store, device=torch.device("cpu"), batch_size=BATCH, num_workers=2)

    sides = {"bare": bare, "extraction": whole}
    seconds = dict.fromkeys(sides, 0.0)
    for round_ in range(arguments.rounds + 1):
        for name, function in sides.items():
            begin = time.perf_counter()
            function()
            if round_:  # the first round fills the page cache and lets torch choose kernels
                seconds[name] += time.perf_counter() - begin
    count = arguments.rounds * len(views)
    print(
        f"i3d_inception, {spec.frames} x {spec.crop} x {spec.crop}, {count} views, "
        f"cpu, {torch.get_num_threads()} threads"
    )
    print(f"bare forward passes {count / seconds['bare']:6.2f} views/s")
    print(f"extraction          {count / seconds['extraction']:6.2f} views/s")
    print(
        f"(a) time of extraction / bare forward {seconds['extraction'] / seconds['bare']:.3f}   (bound 1.15)"
    )


if __name__ == "__main__":
    sys.exit(main())
