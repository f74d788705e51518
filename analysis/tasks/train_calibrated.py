"""Task ``train_calibrated``: train small networks on rendered scenes, and profile their checkpoints."""

from functools import cache
from itertools import product

import pandas as pd
from omegaconf import DictConfig, open_dict
from tqdm import tqdm

from static_dynamic.analysis.estimate.trained import CONDITIONS, Training, compare, folder_of, summarise
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.run.tables import write_table
from static_dynamic.analysis.run.training import Schedule
from static_dynamic.analysis.show.trained import draw_training, format_training
from static_dynamic.configs import row
from static_dynamic.datasets.calibrated import prepare
from static_dynamic.datasets.training_scenes import FAMILY, render_training

# The task sets these options, whatever the command line gives.
NEEDED = {"pairs": "factorial", "stg": None, "until": None, "n_examples": 1_000_000, "shards": 1}
# The seed of the training videos is the seed of the profiled videos plus SEED_STEP, so the videos differ.
SEED_STEP = 1000


def run(cfg: DictConfig) -> None:
    """Train all networks that are not trained yet, per condition and seed; write tables and a figure."""
    task, size = cfg.task, row("model", cfg.task.networks[0]).input
    with open_dict(cfg):
        seed = cfg.dataset.render.seed if cfg.dataset.name == "calibrated" else 0
        cfg.dataset = row("dataset", "calibrated")
        cfg.dataset.render = {
            "families": [FAMILY],
            "videos": task.test_videos,
            "size": size.crop,
            "frames": size.frames * size.sampling_rate,
            "seed": seed,
        }
        cfg.merge_with(NEEDED)
        cfg.dataset.root = str(prepare(cfg.dataset, cfg.style))
    folder = folder_of(cfg)

    @cache
    def training_videos(shortcut: bool):
        share = task.shortcut if shortcut else 0.0
        step = size.sampling_rate
        return render_training(
            task.train_videos, size.crop, cfg.dataset.render.frames, step, seed + SEED_STEP, share
        )

    schedule = Schedule(task.steps, task.batch_size, task.learning_rate, task.checkpoints)
    seeds = range(cfg.seed, cfg.seed + task.seeds)
    trainings = [
        Training(network, condition, seed, folder / network / condition / f"seed{seed:03d}")
        for seed, network, condition in product(seeds, task.networks, task.conditions)
    ]
    results = []
    with tqdm(total=task.steps * len(trainings), desc="train", unit="step", smoothing=0.05) as bar:
        for k, training in enumerate(trainings):
            bar.set_postfix_str(f"{training.network}, {training.condition}, seed {training.seed}")
            with writing(training.folder):
                if training.result() is None:
                    videos, truth = training_videos(CONDITIONS[training.condition].shortcut)
                    for step in training.run(cfg, videos, truth, schedule):
                        bar.update(k * task.steps + step - bar.n)
            bar.update((k + 1) * task.steps - bar.n)
            results.append(training.result())
    table = pd.concat(results, ignore_index=True)
    summary, differences = summarise(table), compare(table)
    with writing(folder):
        for name, numbers in {"training": table, "summary": summary, "differences": differences}.items():
            write_table(folder / f"{name}.csv", numbers)
        draw_training(summary, folder / "training.png")
    print(format_training(summary, differences))
    print(f"\nwritten to {folder}: training.csv, summary.csv, differences.csv, training.png")
