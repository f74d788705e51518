"""Task ``features``: write the activations of chosen stages on chosen views as files for other programs."""

from omegaconf import DictConfig

from static_dynamic.analysis.run.feature_files import FEATURES_TABLE, export_features
from static_dynamic.analysis.run.features import PlannedFeatures
from static_dynamic.analysis.run.locks import writing
from static_dynamic.analysis.show.text import align


def run(cfg: DictConfig) -> None:
    """Compute the activations that the options ask for, and write one file per stage."""
    planned = PlannedFeatures.of(cfg)
    if planned.read_shard():
        return
    folder = planned.folder
    with writing(folder):
        planned.read(planned.open(folder))
        table = export_features(folder, cfg.task.format, cfg.task.rdm)
    print(align(table.to_dict("records")))
    print(f"\nwritten to {folder}: {FEATURES_TABLE}, features/")
