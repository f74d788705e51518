"""Read and check a training configuration: a YAML file of the original, or a row of ``configs/stylizer``."""

from __future__ import annotations

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from static_dynamic.configs import CONFIG_DIR, rows
from static_dynamic.errors import UserError, nearest

MAX_GUIDES = 9
GUIDES = [f"dir_x{i}" for i in range(1, MAX_GUIDES + 1)]
# Keys that choose an implementation by its name, and the implementations that exist here.
KNOWN_TYPES: dict[str, tuple] = {
    "generator.type": ("GeneratorJ",),
    "discriminator.type": ("DiscriminatorN_IN",),
    "opt_generator.type": ("Adam",),
    "opt_discriminator.type": ("Adam",),
    "perception_loss.perception_model.type": ("PerceptualVGG19",),
    "trainer.reconstruction_criterion": ("L1Loss", "MSELoss"),
    "trainer.adversarial_criterion": ("L1Loss", "MSELoss"),
    "training_dataset.type": ("DatasetPatches_M", "DatasetFullImages"),
    "perception_loss.perception_model.args.use_normalization": (False,),
}
# Sections whose keys are arguments of a class.
ARGUMENTS = (
    "generator.args",
    "discriminator.args",
    "opt_generator.args",
    "opt_discriminator.args",
    "perception_loss.perception_model.args",
)


def read_training_config(name: str | Path) -> DictConfig:
    """Read a training configuration; keys that are left out are as in ``reference_P``.

    Parameters
    ----------
    name
        Name of a row of ``configs/stylizer``, or path of a YAML file in the original's form.

    Raises
    ------
    UserError
        The file does not exist, is not such a YAML file, or has a value that is not supported.
    """
    named = CONFIG_DIR / "stylizer" / f"{name}.yaml"
    path = named if str(name) in rows("stylizer") else Path(name)
    if not path.is_file():
        names = rows("stylizer")
        raise UserError(
            f"config={name} is neither a file nor one of {', '.join(names)}{nearest(str(name), names)}"
        )
    try:
        given = OmegaConf.load(path)
        reference = OmegaConf.load(CONFIG_DIR / "stylizer" / "reference_P.yaml")
        config = OmegaConf.merge(reference, given)
        if not isinstance(config, DictConfig):
            raise TypeError("it holds a list")
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"config={path} is not a YAML file of the stylizer: {line}") from error
    for key, known in KNOWN_TYPES.items():
        if OmegaConf.select(config, key) not in known:
            raise UserError(
                f"config={path}: {key}={OmegaConf.select(config, key)} is not supported "
                f"(known: {', '.join(map(str, known))})"
            )
    for section in ARGUMENTS:
        arguments = list(OmegaConf.select(reference, section))
        for key in OmegaConf.select(config, section):
            if key not in arguments:
                raise UserError(f"config={path}: {section}.{key} is not supported{nearest(key, arguments)}")
    config.generator.args.input_channels = 3 + 3 * len(guides_of(config))
    return config


def guides_of(config: DictConfig) -> list[str]:
    """Return the folders of the guides, in order."""
    return [config.training_dataset[key] for key in GUIDES if config.training_dataset.get(key)]
