"""What it costs to bring pixels to the device, beside decoding alone; and to list a large data set.

    python -m bench.loader [--rounds N] [--listing]

Floor: the same frames decoded by the same decoder in as many processes, and thrown away. Both sides take
turns within each round; the ratio of the sums is printed. `--listing` makes 10,000 videos in four styles as
empty files (a minute), and lists and pairs them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from static_dynamic import configs
from static_dynamic.datasets import ClipList, ViewBatches, list_clips, make_views, to_inputs
from static_dynamic.datasets.shared_memory import give_back
from static_dynamic.datasets.workers import loader
from static_dynamic.models import build_model
from static_dynamic.stylize.embedded import prepare

BATCH, WORKERS, REPEAT, STYLES = 8, 2, 8, (1, 2, 3, 4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--listing", action="store_true")
    arguments = parser.parse_args()
    if arguments.listing:
        measure_listing()
        return
    net = build_model("i3d_inception", checkpoint="pretrained").to(arguments.device)
    spec = net.input_spec
    root = prepare(configs.row("dataset", "embedded"), configs.row("style", "builtin"))
    dataset = OmegaConf.create({"name": "embedded", "layout": "folder", "root": str(root)})
    clips = list_clips(dataset, STYLES, arguments.clips)
    views, _ = make_views(
        clips.clips, STYLES, spec.pathways, n_sample_frames=spec.frames * spec.sampling_rate
    )
    source = ViewBatches(clips, views, np.arange(len(views)), BATCH)
    # a round is long, so that starting processes weighs little on both sides
    repeated = ViewBatches(clips, views, np.tile(np.arange(len(views)), REPEAT), BATCH)
    reads = frames_used(views) * REPEAT
    measure_throughput(clips, repeated, reads, torch.device(arguments.device), arguments.rounds)
    measure_busy(net, source, torch.device(arguments.device))


def frames_used(views: pd.DataFrame) -> list[tuple[str, int, list[int]]]:
    """Video, style and frames that some view of them shows, each once."""
    return [
        (video, style, np.unique(np.concatenate(list(group["frames_rgb"]))).tolist())
        for (video, style), group in views.groupby(["video", "style"], sort=False)
    ]


def measure_throughput(
    clips: ClipList, source: ViewBatches, reads: list, device: torch.device, rounds: int
) -> None:
    """(a) pixels to the device over decoding alone; (b) frames decoded over frames used."""
    spent, busy = (dict.fromkeys(("decode", "load"), 0.0) for _ in range(2))
    decoded = 0
    for round_ in tqdm(range(rounds + 1), desc="rounds"):
        begin, begin_busy = time.perf_counter(), processor_seconds()
        with multiprocessing.Pool(WORKERS, decoder, (clips,)) as pool:
            for _ in pool.imap(decode, reads, chunksize=BATCH // 2):
                pass
            pool.close()
            pool.join()  # before that its time is not known
        middle, middle_busy = time.perf_counter(), processor_seconds()
        for batch in loader(source, WORKERS):
            for clip in batch:
                decoded += len(clip.frames.to(device))
                give_back(clip.frames)
        if device.type == "cuda":
            torch.cuda.synchronize()
        if round_:  # the first warms up
            spent["decode"] += middle - begin
            spent["load"] += time.perf_counter() - middle
            busy["decode"] += middle_busy - begin_busy
            busy["load"] += processor_seconds() - middle_busy
    used = sum(len(frames) for _, _, frames in reads)
    print(f"{used} frames a round, {WORKERS} workers, {device}")
    print(f"decoding alone       {rounds * used / spent['decode']:8.1f} frames/s")
    print(f"pixels to the device {rounds * used / spent['load']:8.1f} frames/s")
    print(f"(a) throughput over decoding alone  {spent['decode'] / spent['load']:.3f}   (bound 0.9)")
    print(f"    the same by processor time      {busy['decode'] / busy['load']:.3f}   (disturbed less)")
    print(f"(b) frames decoded over frames used {decoded / (rounds + 1) / used:.3f}   (bound 1)")


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def decoder(clips: ClipList) -> None:
    """Give a process the list that it decodes of."""
    global listed
    listed = clips


def decode(read: tuple[str, int, list[int]]) -> None:
    """Decode the frames of one video in one style, and throw them away."""
    video, style, frames = read
    listed.frames_of(video, style).read(frames)


def measure_busy(net, source: ViewBatches, device: torch.device) -> None:
    """(c) the part of the time in which the network's process does not wait for the loader."""
    batches = iter(loader(source, WORKERS))
    first = next(batches)  # workers have started then
    begin, waited = time.perf_counter(), 0.0
    batch = first
    with tqdm(total=len(source), desc="network", unit="batch") as bar:
        while batch is not None:
            net.read(to_inputs(batch, net.input_spec, device)[0])
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            bar.update()
    busy = 1 - waited / (time.perf_counter() - begin)
    print(f"(c) the network is busy             {busy:.3f}   (bound 0.95)")


def measure_listing(videos: int = 10_000, frames: int = 8) -> None:
    """(d) time and memory to list and pair a large data set of empty files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        names = [f"v{i // 3}_{i % 3:05d}" for i in range(videos)]
        for style in STYLES:
            for name in tqdm(names, desc=f"make style_{style}"):
                video = root / f"style_{style}" / name
                video.mkdir(parents=True)
                for i in range(frames):
                    (video / f"image_{i:05d}.jpg").touch()
        lines = [{"vid_name": n, "label": 0, "start_frame": 0, "end_frame": frames} for n in names]
        (root / "Diving48_V2_test.json").write_text(json.dumps(lines))
        (root / "Diving48_vocab.json").write_text(json.dumps([["Back"]] * 48))
        holder = {"stylized_data_dir": folder, "dataset": configs.row("dataset", "Diving48")}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        begin = time.perf_counter()
        clips = list_clips(OmegaConf.create(holder).dataset, STYLES)
        middle = time.perf_counter()
        views, pairs = make_views(clips.clips, STYLES, {"slow": 8, "fast": 32}, n_sample_frames=64)
        end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(clips.clips)} clips, {len(views)} views, {len(pairs)} pairs")
    print(f"(d) listed and paired {middle - begin:.1f} + {end - middle:.1f} s   (bound 20 s)")
    print(f"    peak memory       {peak:.2f} GiB, {before:.2f} before   (bound 1 GiB)")


if __name__ == "__main__":
    main()
