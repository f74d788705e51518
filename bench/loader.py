"""Measure the speed of the data loader relative to decoding alone, or the time to list a large data set.

    python -m bench.loader [--rounds N]
    python -m bench.loader --listing

The loader brings decoded frames to the device. The baseline decodes the same frames in as many processes
and discards them. Loader and baseline run in each round, and the ratio of the summed times is printed.
``--listing`` makes 10,000 videos in four styles as empty files (a minute), and times listing and pairing.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bench.inputs import STYLES, embedded_clips
from bench.meters import in_turns
from static_dynamic import configs
from static_dynamic.command import Options, command
from static_dynamic.datasets import ClipList, ViewBatches, list_clips, make_views, to_inputs
from static_dynamic.datasets.shared_memory import release
from static_dynamic.datasets.workers import loader
from static_dynamic.device import DEVICES, choose_device
from static_dynamic.models import build_model

BATCH, WORKERS = 8, 2
# Each round loads all views REPEAT times, so that the start-up time of processes is negligible.
REPEAT = 8


@command
def main() -> None:
    """Time the data loader, or the listing of a large data set, and print the results."""
    parser = Options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--device", default="cpu", help=DEVICES)
    parser.add_argument("--listing", action="store_true", help="time the listing instead")
    given = parser.parse_args()
    if given.listing:
        measure_listing()
        return
    device = choose_device(given.device)
    net = build_model("i3d_inception", checkpoint="pretrained").to(device)
    spec = net.input_spec
    clips = embedded_clips(given.clips)
    window = spec.frames * spec.sampling_rate
    views, _ = make_views(clips.clips, STYLES, spec.pathways, n_sample_frames=window)
    source = ViewBatches(clips, views, np.arange(len(views)), BATCH)
    repeated = ViewBatches(clips, views, np.tile(np.arange(len(views)), REPEAT), BATCH)
    reads = frames_used(views) * REPEAT
    measure_throughput(clips, repeated, reads, device, given.rounds)
    measure_busy(net, source, device)


def frames_used(views: pd.DataFrame) -> list[tuple[str, int, list[int]]]:
    """Return a list of (video, style, frames) with the distinct frames that the network sees."""
    return [
        (video, style, np.unique(np.concatenate(list(group["frames_rgb"]))).tolist())
        for (video, style), group in views.groupby(["video", "style"], sort=False)
    ]


def measure_throughput(
    clips: ClipList, source: ViewBatches, reads: list, device: torch.device, rounds: int
) -> None:
    """Print the ratio of loader to decoder throughput, and the ratio of decoded to used frames."""
    decoded = 0

    def decode_all() -> None:
        with multiprocessing.Pool(WORKERS, start_decoder, (clips,)) as pool:
            for _ in pool.imap(decode, reads, chunksize=BATCH // 2):
                pass
            pool.close()
            # The CPU time of a process is known only after the process has ended.
            pool.join()

    def load_all() -> None:
        nonlocal decoded
        for batch in loader(source, WORKERS):
            for clip in batch:
                decoded += len(clip.frames.to(device))
                release(clip.frames)
        if device.type == "cuda":
            torch.cuda.synchronize()

    times = in_turns({"decode": decode_all, "load": load_all}, rounds)
    decoding, loading = (times[name].sum(axis=0) for name in ("decode", "load"))  # wall, CPU seconds
    used = sum(len(frames) for _, _, frames in reads)
    print(f"{used} frames per round, {WORKERS} workers, {device}")
    print(f"decoding alone        {rounds * used / decoding[0]:8.1f} frames/s")
    print(f"loader, to the device {rounds * used / loading[0]:8.1f} frames/s")
    print(f"(a) throughput of loader / decoding    {decoding[0] / loading[0]:.3f}   (bound 0.9)")
    print(f"    the same by CPU time               {decoding[1] / loading[1]:.3f}   (less noise)")
    print(f"(b) frames decoded / frames used       {decoded / (rounds + 1) / used:.3f}   (bound 1)")


def start_decoder(clips: ClipList) -> None:
    """Store the list of clips in a global variable of this decoding process."""
    global listed
    listed = clips


def decode(read: tuple[str, int, list[int]]) -> None:
    """Decode frames of one video in one style, and discard the result."""
    video, style, frames = read
    listed.frames_of(video, style).read(frames)


def measure_busy(net, source: ViewBatches, device: torch.device) -> None:
    """Print the fraction of time in which the network does not wait for batches from the loader."""
    batches = iter(loader(source, WORKERS))
    # All workers are running after the first batch, so their start-up is not timed.
    first = next(batches)
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
    print(f"(c) time not spent waiting for frames  {busy:.3f}   (bound 0.95)")


def measure_listing(videos: int = 10_000, frames: int = 8) -> None:
    """Print the time and memory needed to list and pair the clips of a large data set of empty files."""
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
        row = configs.row("dataset", "Diving48")
        row.root = folder
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        begin = time.perf_counter()
        clips = list_clips(row, STYLES)
        middle = time.perf_counter()
        views, pairs = make_views(clips.clips, STYLES, {"slow": 8, "fast": 32}, n_sample_frames=64)
        end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(clips.clips)} clips, {len(views)} views, {len(pairs)} pairs")
    print(f"(d) listed and paired {middle - begin:.1f} + {end - middle:.1f} s   (bound 20 s)")
    print(f"    peak memory       {peak:.2f} GiB, {before:.2f} before   (bound 1 GiB)")


if __name__ == "__main__":
    sys.exit(main())
