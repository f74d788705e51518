"""Mutants of the annotation files of all data sets."""

import csv
import io
import json
from functools import cache
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from static_dynamic import configs
from static_dynamic.datasets.annotations import LAYOUTS
from tests.fuzz.kinds.run_folders import VALUES, entries
from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.registry import Trial, fuzzer

ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16")


@fuzzer
def annotations(rng: np.random.Generator, folder: Path) -> tuple[str, Trial]:
    """Change bytes of an annotation file, or replace one of its values by a senseless one."""
    dataset = list(files())[rng.integers(len(files()))]
    for name, content in files()[dataset].items():
        (folder / name).write_bytes(content.encode(ENCODINGS[rng.integers(len(ENCODINGS))]))
    name = list(files()[dataset])[rng.integers(len(files()[dataset]))]
    path = folder / name
    if rng.integers(3) == 0 and name.endswith(".json"):
        what, value = "other value", json.loads(files()[dataset][name])
        places = list(entries(value))
        parent, key = places[rng.integers(len(places))]
        parent[key] = VALUES[rng.integers(len(VALUES))]
        path.write_text(json.dumps(value), encoding="utf-8")
    else:
        what = list(MUTATIONS)[rng.integers(len(MUTATIONS))]
        path.write_bytes(MUTATIONS[what](rng, path.read_bytes()))
    return f"{what}: {dataset} {name}", lambda: trial(dataset, folder)


def trial(dataset: str, folder: Path) -> str:
    """Read the annotations; every entry is a clip, or says why it is none."""
    row = OmegaConf.create(
        {"stylized_data_dir": str(folder), "dataset": configs.row("dataset", dataset)}
    ).dataset
    clips = list(LAYOUTS[row.layout](row, folder, []))
    for clip in clips:
        assert clip.broken or clip.filtered or clip.names, "an entry without a video and without a reason"
        assert clip.label >= -1 and (clip.filtered or clip.frames is None or clip.frames > 0)
        if clip.seconds is not None:
            assert 0 <= clip.seconds[0] <= clip.seconds[1] < float("inf"), f"seconds {clip.seconds}"
    return "read"


@cache
def files() -> dict[str, dict[str, str]]:
    """Return the annotation files of each data set, with five videos each."""
    names = [f"video_{k:05d}" for k in range(5)]
    anet = {
        name: {
            "duration_second": 40.0 + k,
            "num_frames": 1000,
            "annotations": [{"segment": [k, 30.0 + k], "label": f"class {k % 2}"}],
        }
        for k, name in enumerate(names)
    }
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["label", "youtube_id", "time_start", "time_end", "split", "is_cc"])
    writer.writerows(["yoga" if k % 2 else "yawning", f"-id{k}", k, k + 10, "val", 0] for k in range(5))
    official = {
        key: {"duration": 40.0, "subset": "validation", "annotations": video["annotations"]}
        for key, video in anet.items()
    }
    return {
        "StylizedActivityNet": {"activitynet_v13.json": json.dumps({"database": official})},
        "ssv2": {
            "validation.json": json.dumps([{"id": name, "template": "Moving [something]"} for name in names]),
            "labels.json": json.dumps({"Moving something": "0"}),
        },
        "Diving48": {
            "Diving48_test.json": json.dumps(
                [{"vid_name": n, "label": 0, "start_frame": 0, "end_frame": 90} for n in names]
            ),
            "Diving48_vocab.json": json.dumps([["Back", "15som"]]),
        },
        "Kinetics": {"val.csv": stream.getvalue()},
        "MMAction2": {"val_list.txt": "".join(f"a/{n} 40 {k}\nb/{n}.mp4 {k}\n" for k, n in enumerate(names))},
        "UCF101": {
            "testlist01.txt": "".join(f"Archery/v_Archery_g0{k}_c01.avi\n" for k in range(5)),
            "classInd.txt": "1 Archery\n2 Bowling\n",
        },
        "HMDB51": {"wave_test_split1.txt": "".join(f"x_wave_{k}.avi {k % 3} \n" for k in range(5))},
        "Jester": {
            "jester-v1-validation.csv": "".join(f"{k};Swiping Left\n" for k in range(5)),
            "jester-v1-labels.csv": "Swiping Left\nDoing other things\n",
        },
        "Charades": {
            "Charades_v1_test.csv": "id,actions,length\n"
            + "".join(f"V{k},c092 0.5 1.5;c147 0.25 0.75,30\n" for k in range(5))
        },
        "EPICKitchens": {
            "EPIC_100_validation.csv": "narration_id,video_id,start_timestamp,stop_timestamp,start_frame,"
            "stop_frame,verb_class,noun_class\n"
            + "".join(f"P01_01_{k},P01_01,00:00:01.5,00:01:02.{k},{90 + k},3720,3,7\n" for k in range(5))
        },
    }
