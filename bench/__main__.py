"""Everything about speed in one table, for this machine's device.

    python -m bench [--models NAME ...] [--device cuda] [--write]

The data set is made here and the weights are random: neither changes what an operation costs. A round takes
everything in turn, and sums over rounds are compared, so that other work on the machine weighs on all alike.

* bare: forward passes of one batch that is on the device already, at the best batch size;
* ours: extraction of every stage, from disk, and on a GPU also from frames in memory (a warm source);
* fast (``--fast``): ours with precision=bf16 tune=true, what of it was taken;
* plain: the paper's procedure (bench/plain.py), with all its five runs;
* width: the same for intervals of the same width (bench/widths.py, on a factorial run that is given).

``--scale 0.5`` halves frames, size and crop alike: decoding and computing both cost a quarter, and their
ratio stays.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import platform
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from bench.meters import peak_of, sampled, timed
from bench.plain import plain
from bench.videos import FRAMES, STYLES, make_set, warm_up
from bench.widths import clips_needed
from static_dynamic.analysis.run.extraction import extract
from static_dynamic.analysis.run.forward import Reader
from static_dynamic.analysis.run.store import Store
from static_dynamic.analysis.show.text import align
from static_dynamic.datasets import ClipList, make_views
from static_dynamic.device import without_tf32
from static_dynamic.files import write_text
from static_dynamic.models import VideoNetwork, build_model
from static_dynamic.spacing import evenly_spaced

RESULTS = Path(__file__).parent / "RESULTS.md"
MODELS = ("slowfast_r50_8x8", "i3d_inception")
BATCHES = {"cuda": (8, 16, 32, 64), "cpu": (2, 8)}  # tried
HEIGHT, WIDTH = 256, 340
EQUAL_PAIRS, EQUAL_WIDTH, WARM_RATIO, BF16_GAIN = 1 / 8, 1 / 4, 0.90, 1.5  # what is to be reached


def main() -> None:
    """Measure and print; with ``--write`` into RESULTS.md too."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1, help="ours: the list of clips so many times over")
    parser.add_argument("--seconds", type=float, help="in place of --repeat: how long a bare pass lasts")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=min(14, os.cpu_count() or 1))
    parser.add_argument("--no-plain", action="store_true")
    parser.add_argument("--fast", action="store_true", help="also ours with precision=bf16 tune=true")
    parser.add_argument(
        "--whole", action="store_true", help="plain: passes that go on to the end, whatever stage is read"
    )
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="for widths: one a model")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    without_tf32()
    device = torch.device(given.device)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shape = (round(HEIGHT * given.scale), round(WIDTH * given.scale))
        clips = make_set(Path(folder), given.clips, *shape)
        for i, name in enumerate(given.models):
            net = scaled(build_model(name), given.scale)
            row = measure(name, net, clips, device, given)
            if i < len(given.run) and "ours/plain" in row:
                row |= at_equal_width(row, given.run[i])
            rows.append(row)
            print(align([{k: v for k, v in row.items() if not k.startswith("_")}]), flush=True)
    text = report([{k: v for k, v in row.items() if not k.startswith("_")} for row in rows], device, given)
    print(text)
    if given.write:
        write_section(RESULTS, text)


def scaled(net: VideoNetwork, scale: float) -> VideoNetwork:
    """The network with a smaller input."""
    spec = net.input_spec
    net.input_spec = replace(spec, size=round(spec.size * scale), crop=round(spec.crop * scale))
    return net


def measure(name: str, net: VideoNetwork, clips: ClipList, device: torch.device, given) -> dict:
    """One row of the table."""
    spec = net.input_spec
    window = max(FRAMES, *spec.pathways.values())
    views, pairs = make_views(clips.clips, STYLES, spec.pathways, n_sample_frames=window)
    net.to(device)
    batch, rate = best_batch(net, device)
    repeat = max(1, round(given.seconds * rate / len(views))) if given.seconds else given.repeat
    views = views.loc[np.tile(views.index, repeat)].reset_index(drop=True)
    spent: dict[str, float] = defaultdict(float)
    sources = {"ours": clips} | ({"warm": warm_up(clips)} if device.type == "cuda" else {})
    options = {"device": device, "batch_size": batch, "num_workers": given.workers}
    count = len(pairs)
    shown = net.shown_stages({"path": "cat"})
    # runs of whole passes cost the same whatever stage they read: one is measured
    stages, weight = (shown[-1:], len(shown)) if given.whole else (shown, 1)
    busy, peaks = [], []

    def ours(source: ClipList) -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract(net, source, views, new_store(folder, net, views, pairs), **options)

    def fast() -> dict:
        with tempfile.TemporaryDirectory() as folder:
            store = new_store(folder, tuned, views, pairs, **chosen)
            extract(tuned, clips, views, store, **options, precision="bf16", tune=True)
            return {"computed_with": store.manifest["computed_with"]}

    ours(clips)  # warm: files in the page cache, kernels chosen
    if given.fast:
        tuned, chosen = copy.deepcopy(net), {}
        chosen = fast()
    for _ in tqdm(range(given.rounds), desc=name):
        spent["bare"] += timed(lambda: bare(net, device, batch, len(views)), device)
        for kind, source in sources.items():
            with sampled(device) as load, peak_of(device) as peak:
                spent[kind] += timed(lambda source=source: ours(source), device)
            busy.append(np.mean(load) if load else np.nan)
            peaks.append(peak)
        if given.fast:
            spent["fast"] += timed(fast, device)
        if device.type == "cuda":
            spent["bf16"] += timed(lambda: bare(net, device, batch, len(views), torch.bfloat16), device)
        if not given.no_plain:
            share = max(2, count // given.rounds)
            for stage in stages:
                spent["plain"] += timed(
                    lambda stage=stage, share=share: plain(
                        net,
                        clips,
                        window=window,
                        count=share,
                        stage=stage,
                        device=device,
                        num_workers=given.workers,
                    ),
                    device,
                )
            spent["plain pairs"] += share
    read = given.rounds * len(views)
    row = {
        "network": name,
        "clip": " x ".join(map(str, (spec.frames, *spec.shape))),
        "batch": batch,
        "bare, clips/s": f"{read / spent['bare']:.2f}",
        "ours, clips/s": f"{read / spent['ours']:.2f}",
        "ours/bare": f"{spent['bare'] / spent['ours']:.3f}",
    }
    if device.type == "cuda":
        row["warm/bare"] = f"{spent['bare'] / spent['warm']:.3f}"
        row["busy, %"] = f"{np.nanmean(busy):.0f}"
        row["bf16/fp32"] = f"{spent['bare'] / spent['bf16']:.2f}"
        row["bf16 gate"] = gate(net, clips, views, device)
    if given.fast:
        used = chosen["computed_with"]
        row["fast, clips/s"] = f"{read / spent['fast']:.2f}"
        row["(with)"] = ", ".join([used["precision"], *used["kernels"]])
    row["memory, GiB"] = f"{max(p[0] for p in peaks):.2f}"
    if not given.no_plain:
        pair_ours = spent["ours"] / (given.rounds * count * repeat)
        pair_plain = weight * spent["plain"] / spent["plain pairs"]
        row |= {
            "ours, s/pair": f"{pair_ours:.3f}",
            "plain, s/pair": f"{pair_plain:.3f}",
            "ours/plain": f"{pair_ours / pair_plain:.3f}",
            "_clip": (spent["ours"] / (given.rounds * len(clips.clips) * repeat), pair_plain),
        }
        if given.fast:
            row["fast/plain"] = f"{pair_ours / pair_plain * spent['fast'] / spent['ours']:.3f}"
    return row


def at_equal_width(row: dict, run: Path) -> dict:
    """The time of ours over that of plain where both give intervals of the same width."""
    needed = clips_needed(run, "factorial").to_numpy()
    ours, per_pair = row["_clip"]  # seconds a clip with all its views; seconds a clip with its one pair
    ratios = needed * ours / per_pair
    return {"at equal width": f"{np.median(ratios):.3f}", "(worst score)": f"{ratios.max():.3f}"}


def new_store(folder: str, net: VideoNetwork, views, pairs, **noted) -> Store:
    """An empty run, whose manifest holds what is `noted`."""
    stages = {name: {"units": stage.units, "stream": stage.stream} for name, stage in net.stages.items()}
    manifest = {"identity": {}, "stages": stages, "skipped_views": [], **noted}
    return Store.create_or_resume(Path(folder), manifest, views, pairs)


@torch.inference_mode()
def bare(
    net: VideoNetwork, device: torch.device, batch: int, views: int, dtype: torch.dtype | None = None
) -> None:
    """Forward passes over so many views, on one batch that is on the device."""
    inputs = net.example_input(lambda shape: torch.randn(shape, device=device), batch)
    deepest = list(net.stages)[-1]
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        for _ in range(-(-views // batch)):
            net.read(inputs, [deepest])  # all but the head, which pools over more than a small crop has


def best_batch(net: VideoNetwork, device: torch.device) -> tuple[int, float]:
    """The batch size with most clips a second, and how many."""
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
    best = max(rates, key=rates.get)
    return best, rates[best]


def gate(net: VideoNetwork, clips: ClipList, views, device: torch.device) -> str:
    """Whether bf16 says the same as fp32, on a batch of views."""
    rows = evenly_spaced(8, len(views), np.trunc)
    batch = clips.batches(views, rows, len(rows), net.input_spec)[0]
    passed = Reader(net, list(net.stages), device).try_bf16(clips.to_inputs(batch, net.input_spec, device))
    return "passes" if passed else "fails"


def report(rows: list[dict], device: torch.device, given) -> str:
    """The section of RESULTS.md."""
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        f"## `python -m bench{' --no-plain' * given.no_plain}`: {where}, torch {torch.__version__}",
        "",
        f"Frames of {round(WIDTH * given.scale)} x {round(HEIGHT * given.scale)} (jpg), windows of {FRAMES}; "
        f"{given.workers} processes decode; {given.rounds} rounds; TF32 off"
        + ("; times are those of processors" if device.type == "cpu" else "")
        + ". `ours/plain`: time for all five "
        f"stages at an equal number of pairs (to reach: {EQUAL_PAIRS:.3f}), `at equal width` of intervals "
        f"({EQUAL_WIDTH:.2f}; median over stages and scores); `warm/bare` {WARM_RATIO:.2f}; `bf16/fp32` "
        f"{BF16_GAIN:.1f} where the gate passes.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
    ]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def write_section(path: Path, section: str) -> None:
    """Put a section in place of the one with the same heading, or at the end."""
    heading = section.splitlines()[0]
    parts = ("\n" + path.read_text(encoding="utf-8")).split("\n## ")
    kept = [part for part in parts[1:] if f"## {part.splitlines()[0]}" != heading]
    texts = [parts[0].strip(), *(f"## {part.strip()}" for part in kept), section.strip()]
    write_text(path, "\n\n".join(texts) + "\n")


if __name__ == "__main__":
    main()
