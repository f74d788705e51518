"""Measure how fast activations are extracted on this machine, and print one table.

    python -m bench [--models NAME ...] [--device cuda] [--write]

Videos are synthetic and weights are random, which does not change the cost of an operation. Each round runs
all cases, and sums over rounds are compared, so that other work on the machine affects all cases alike. The
cases:

* bare: forward passes of one batch that is already on the device, at the best batch size;
* extraction: extraction of every stage from disk; on a GPU also from frames in memory ("cached");
* tuned (``--tuned``): extraction with precision=bf16 tune=true, as far as these options pass their checks;
* baseline: the paper's procedure (bench/baseline.py) with its five runs, one per stage;
* equal width: time of extraction over time of baseline, for intervals of equal width (``--run``, widths.py).

``--scale 0.5`` halves the frames and the network's input size. Decoding and computing both cost a quarter,
so that the ratio of the two costs stays the same.
"""

import copy
import os
import platform
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from bench.baseline import run_baseline
from bench.inputs import FRAMES, STYLES, cached, embedded_clips, make_videos, new_store, stages_of
from bench.meters import gpu_load, peak_memory, timed
from bench.widths import clips_needed
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.forward import Reader
from static_dynamic.analysis.show.text import align
from static_dynamic.command import Options, command
from static_dynamic.datasets import ClipList, make_views
from static_dynamic.device import DEVICES, choose_device
from static_dynamic.files import write_text
from static_dynamic.models import VideoNetwork, build_model
from static_dynamic.spacing import evenly_spaced

RESULTS = Path(__file__).parent / "RESULTS.md"
MODELS = ("slowfast_r50_8x8", "i3d_inception")
BATCHES = {"cuda": (8, 16, 32, 64), "cpu": (2, 8)}  # batch sizes to try
HEIGHT, WIDTH = 256, 340
# EQUAL_PAIRS: largest wanted time ratio of extraction to baseline, at equal numbers of pairs.
EQUAL_PAIRS = 1 / 8
# Goal: confidence intervals of equal width take at most this fraction of the time of the baseline.
EQUAL_WIDTH = 1 / 4
# CACHED_RATIO: smallest wanted speed ratio of extraction (frames in memory) to bare forward passes.
CACHED_RATIO = 0.90
# BF16_GAIN: smallest wanted speed ratio of bf16 to fp32.
BF16_GAIN = 1.5


@command
def main() -> None:
    """Time the extraction for each network and print a table; with ``--write`` also update RESULTS.md."""
    parser = Options(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--device", help=f"{DEVICES} (default: a GPU if present)")
    parser.add_argument("--clips", type=int, default=2, help="number of videos, at least 2")
    parser.add_argument("--embedded", action="store_true", help="videos of the built-in data set")
    parser.add_argument("--repeat", type=int, default=1, help="repetitions of the views per round")
    parser.add_argument("--seconds", type=float, help="duration of the bare passes, instead of --repeat")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for frame and input size")
    parser.add_argument("--rounds", type=int, default=2)
    cores = min(14, os.cpu_count() or 1)
    parser.add_argument("--workers", type=int, default=cores, help="decoding processes")
    parser.add_argument("--no-baseline", action="store_true", help="leave the baseline out")
    parser.add_argument("--tuned", action="store_true", help="also run with precision=bf16 tune=true")
    whole = "forward passes of the baseline do not end after the stage that is read"
    parser.add_argument("--whole-passes", action="store_true", help=whole)
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="factorial runs, one per model")
    parser.add_argument("--write", action="store_true", help="update RESULTS.md")
    given = parser.parse_args()
    device = choose_device(given.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shape = (round(HEIGHT * given.scale), round(WIDTH * given.scale))
        clips = embedded_clips(given.clips) if given.embedded else make_videos(folder, given.clips, *shape)
        runs = [*given.run, *[None] * len(given.models)]
        for name, run in zip(given.models, runs, strict=False):
            rows.append(measure(name, scaled(build_model(name), given.scale), clips, device, run, given))
            print(align(rows[-1:]), flush=True)
    text = report(rows, device, given)
    print(text)
    if given.write:
        write_section(RESULTS, text)


def scaled(net: VideoNetwork, scale: float) -> VideoNetwork:
    """Multiply the image size and the crop of the input of `net` by `scale`; return `net`."""
    spec = net.input_spec
    net.input_spec = replace(spec, size=round(spec.size * scale), crop=round(spec.crop * scale))
    return net


def measure(
    name: str, net: VideoNetwork, clips: ClipList, device: torch.device, run: Path | None, given
) -> dict:
    """Time the extraction and the baseline for one network; return one row of the printed table."""
    spec = net.input_spec
    window = max(FRAMES, *spec.pathways.values())
    views, pairs = make_views(clips.clips, STYLES, spec.pathways, n_sample_frames=window)
    net.to(device)
    batch, rate = best_batch(net, device)
    repeat = max(1, round(given.seconds * rate / len(views))) if given.seconds else given.repeat
    views = views.loc[np.tile(views.index, repeat)].reset_index(drop=True)
    spent: dict[str, float] = defaultdict(float)  # seconds per case
    sources = {"extraction": clips} | ({"cached": cached(clips)} if device.type == "cuda" else {})
    options = {"device": device, "batch_size": batch, "num_workers": given.workers}
    count = len(pairs)
    shown = net.shown_stages({"path": "cat"})
    # A whole forward pass costs the same for every stage, so only one stage is timed.
    stages, weight = (shown[-1:], len(shown)) if given.whole_passes else (shown, 1)
    baseline = partial(run_baseline, net, clips, window=window, device=device, num_workers=given.workers)
    loads, peaks = [], []

    def extraction(source: ClipList) -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract(net, source, views, new_store(folder, stages_of(net), views, pairs), **options)

    def tuned() -> dict:
        with tempfile.TemporaryDirectory() as folder:
            store = new_store(folder, stages_of(tuned_net), views, pairs, **chosen)
            extract(tuned_net, clips, views, store, **options, precision="bf16", tune=True)
            return {"computed_with": store.manifest["computed_with"]}

    # An untimed warm-up loads the files into the page cache and lets torch choose its kernels.
    extraction(clips)
    if given.tuned:
        tuned_net, chosen = copy.deepcopy(net), {}
        chosen = tuned()
    for _ in tqdm(range(given.rounds), desc=name):
        spent["bare"] += timed(lambda: bare(net, device, batch, len(views)), device)
        for kind, source in sources.items():
            with gpu_load(device) as load, peak_memory(device) as peak:
                spent[kind] += timed(partial(extraction, source), device)
            loads.append(np.mean(load) if load else np.nan)
            peaks.append(peak)
        if given.tuned:
            spent["tuned"] += timed(tuned, device)
        if device.type == "cuda":
            spent["bf16"] += timed(lambda: bare(net, device, batch, len(views), torch.bfloat16), device)
        if not given.no_baseline:
            share = max(2, count // given.rounds)
            for stage in stages:
                spent["baseline"] += timed(partial(baseline, count=share, stage=stage), device)
            spent["baseline pairs"] += share
    read = given.rounds * len(views)
    row = {
        "network": name,
        "clip": " x ".join(map(str, (spec.frames, *spec.shape))),
        "batch": batch,
        "bare, clips/s": f"{read / spent['bare']:.2f}",
        "extraction, clips/s": f"{read / spent['extraction']:.2f}",
        "extraction/bare": f"{spent['bare'] / spent['extraction']:.3f}",
    }
    if device.type == "cuda":
        row["cached/bare"] = f"{spent['bare'] / spent['cached']:.3f}"
        row["GPU load, %"] = f"{np.nanmean(loads):.0f}"
        row["bf16/fp32"] = f"{spent['bare'] / spent['bf16']:.2f}"
        row["bf16 check"] = bf16_check(net, clips, views, device)
    if given.tuned:
        used = chosen["computed_with"]
        row["tuned, clips/s"] = f"{read / spent['tuned']:.2f}"
        row["tuned with"] = ", ".join([used["precision"], *used["kernels"]])
    row["memory, GiB"] = f"{max(p[0] for p in peaks):.2f}"
    if not given.no_baseline:
        ours = spent["extraction"] / (given.rounds * count * repeat)
        per_pair = weight * spent["baseline"] / spent["baseline pairs"]
        row |= {
            "extraction, s/pair": f"{ours:.3f}",
            "baseline, s/pair": f"{per_pair:.3f}",
            "extraction/baseline": f"{ours / per_pair:.3f}",
        }
        if given.tuned:
            row["tuned/baseline"] = f"{ours / per_pair * spent['tuned'] / spent['extraction']:.3f}"
        if run:
            # Compare times per clip: extraction reads all views of a clip, but the baseline reads one pair.
            per_clip = spent["extraction"] / (given.rounds * len(clips.clips) * repeat)
            ratios = clips_needed(run, "factorial").to_numpy() * per_clip / per_pair
            row |= {"at equal width": f"{np.median(ratios):.3f}", "worst score": f"{ratios.max():.3f}"}
    return row


@torch.inference_mode()
def bare(
    net: VideoNetwork, device: torch.device, batch: int, views: int, dtype: torch.dtype | None = None
) -> None:
    """Run forward passes for `views` inputs; every pass gets the same batch, already on the device."""
    inputs = net.example_input(lambda shape: torch.randn(shape, device=device), batch)
    deepest = list(net.stages)[-1]
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        for _ in range(-(-views // batch)):
            # The pass stops before the classifier, whose pooling layer needs a larger crop.
            net.read(inputs, [deepest])


def best_batch(net: VideoNetwork, device: torch.device) -> tuple[int, float]:
    """Return a tuple (batch size with the fastest forward passes, inputs per second at this size)."""
    rates = {}
    for batch in BATCHES[device.type]:
        views = 2 * batch if device.type == "cuda" else 8
        try:
            bare(net, device, batch, batch)
            rates[batch] = views / timed(lambda b=batch, v=views: bare(net, device, b, v), device)
        except torch.OutOfMemoryError:
            break
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return max(rates.items(), key=lambda item: item[1])


def bf16_check(net: VideoNetwork, clips: ClipList, views, device: torch.device) -> str:
    """Compare bf16 with fp32 by the check that extraction uses; return ``passes`` or ``fails``."""
    rows = evenly_spaced(8, len(views), np.trunc)
    batch = clips.batches(views, rows, len(rows), net.input_spec)[0]
    passed = Reader(net, list(net.stages), device).try_bf16(clips.to_inputs(batch, net.input_spec, device))
    return "passes" if passed else "fails"


def report(rows: list[dict], device: torch.device, given) -> str:
    """Format the rows of measurements as a section of RESULTS.md."""
    where = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    size = f"{round(WIDTH * given.scale)} x {round(HEIGHT * given.scale)}"
    frames = "of the embedded data set" if given.embedded else f"of {size} (jpg)"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        f"## `python -m bench{' --no-baseline' * given.no_baseline}`: {where}, torch {torch.__version__}",
        "",
        f"The inputs are windows of {FRAMES} frames {frames}. The table was measured in {given.rounds} "
        f"rounds, with {given.workers} decoding processes and TF32 off."
        + (" All times are CPU times." if device.type == "cpu" else "")
        + " The time ratio `extraction/baseline` is measured for all five stages at an equal number of pairs "
        f"(target {EQUAL_PAIRS:.3f}). The time ratio `at equal width` is measured at equal width of the "
        f"intervals (target {EQUAL_WIDTH:.2f}; median over stages and scores). The speed ratios are "
        f"`extraction/bare`, `cached/bare` (target {CACHED_RATIO:.2f}) and `bf16/fp32` (target "
        f"{BF16_GAIN:.1f} if the bf16 check passes).",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_section(path: Path, section: str) -> None:
    """Write `section` into the file `path`, in place of an older section with the same heading."""
    heading = section.splitlines()[0]
    parts = ("\n" + path.read_text(encoding="utf-8")).split("\n## ")
    kept = [part for part in parts[1:] if f"## {part.splitlines()[0]}" != heading]
    texts = [parts[0].strip(), *(f"## {part.strip()}" for part in kept), section.strip()]
    write_text(path, "\n\n".join(texts) + "\n")


if __name__ == "__main__":
    sys.exit(main())
