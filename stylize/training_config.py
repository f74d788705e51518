"""Read and check the configuration of a training: a file in ``configs/stylizer``, or another YAML file."""

from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from static_dynamic.configs import CONFIG_DIR, rows
from static_dynamic.errors import UserError, nearest

MAX_GUIDES = 9
GUIDES = [f"dir_x{i}" for i in range(1, MAX_GUIDES + 1)]
# CLASSES: section of the configuration -> the only allowed value of the section's key ``type``.
CLASSES = {
    "generator": "GeneratorJ",
    "discriminator": "DiscriminatorN_IN",
    "opt_generator": "Adam",
    "opt_discriminator": "Adam",
    "perception_loss.perception_model": "PerceptualVGG19",
}
# SUPPORTED: key of the configuration -> supported values of the key.
SUPPORTED: dict[str, tuple] = {
    **{f"{section}.type": (name,) for section, name in CLASSES.items()},
    "trainer.reconstruction_criterion": ("L1Loss", "MSELoss"),
    "trainer.adversarial_criterion": ("L1Loss", "MSELoss"),
    "training_dataset.type": ("DatasetPatches_M", "DatasetFullImages"),
    "perception_loss.perception_model.args.use_normalization": (False,),
}


def read_training_config(name: str | Path) -> DictConfig:
    """Read a training configuration; keys that are missing get the values of ``reference_P.yaml``.

    `name` is a name in ``configs/stylizer``, or the path of a YAML file in the form of Texler et al.'s code.
    Raises UserError if the file does not exist, has another form, or has a value that is not supported.
    """
    names = rows("stylizer")
    path = CONFIG_DIR / "stylizer" / f"{name}.yaml" if str(name) in names else Path(name)
    if not path.is_file():
        known = f"{', '.join(names)}{nearest(str(name), names)}"
        raise UserError(f"config={name} is neither a file nor one of {known}")
    try:
        given = OmegaConf.load(path)
        # Refuse ${...}: OmegaConf would resolve it, and a downloaded file could read environment variables.
        if "${" in str(OmegaConf.to_container(given)):
            raise ValueError("it contains ${...}: write the value itself")
        reference = OmegaConf.load(CONFIG_DIR / "stylizer" / "reference_P.yaml")
        config = OmegaConf.merge(reference, given)
        if not isinstance(config, DictConfig):
            raise TypeError("it holds a list")
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"config={path} is not a YAML file with a training configuration: {line}") from error
    for key, supported in SUPPORTED.items():
        value = OmegaConf.select(config, key)
        if value not in supported:
            known = ", ".join(map(str, supported))
            raise UserError(f"config={path}: {key}={value} is not supported (known: {known})")
    for section in CLASSES:
        arguments = list(OmegaConf.select(reference, f"{section}.args"))
        for key in OmegaConf.select(config, f"{section}.args"):
            if key not in arguments:
                hint = nearest(key, arguments)
                raise UserError(f"config={path}: {section}.args.{key} is not supported{hint}")
    config.generator.args.input_channels = 3 + 3 * len(guides_of(config))
    return config


def guides_of(config: DictConfig) -> list[str]:
    """Return the folders of guide images that the configuration names, in order."""
    return [config.training_dataset[key] for key in GUIDES if config.training_dataset.get(key)]
