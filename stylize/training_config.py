"""What a training is told: the original's YAML files, or a row of ``configs/stylizer``, checked and made
whole."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from static_dynamic.configs import CONFIG_DIR, rows
from static_dynamic.errors import UserError, nearest

log = logging.getLogger(__name__)

MAX_GUIDES = 9
# the values that are built, of keys that choose a class by its name
KNOWN_TYPES = {
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
ARGUMENTS = (
    "generator.args",
    "discriminator.args",
    "opt_generator.args",
    "opt_discriminator.args",
    "perception_loss.perception_model.args",
)
GUIDES = [f"dir_x{i}" for i in range(1, MAX_GUIDES + 1)]


def read_recipe(name: str | Path) -> DictConfig:
    """Read a training's settings: the name of a row of ``configs/stylizer``, or the path of a YAML file in
    the original's form. What it leaves out is as in ``reference_P``.

    Raises
    ------
    UserError
        A file that is not there or is no such YAML, or a value that is not built here.
    """
    named = CONFIG_DIR / "stylizer" / f"{name}.yaml"
    path = named if str(name) in rows("stylizer") else Path(name)
    if not path.is_file():
        known = rows("stylizer")
        raise UserError(
            f"config={name} is neither a file nor one of {', '.join(known)}{nearest(str(name), known)}"
        )
    try:
        given = OmegaConf.load(path)
        reference = OmegaConf.load(CONFIG_DIR / "stylizer" / "reference_P.yaml")
        recipe = OmegaConf.merge(reference, given)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())[:160]
        raise UserError(f"config={path} is not a YAML file of the stylizer: {line}") from error
    for key, known in KNOWN_TYPES.items():
        if OmegaConf.select(recipe, key) not in known:
            raise UserError(
                f"config={path}: {key}={OmegaConf.select(recipe, key)} is not built here "
                f"(known: {', '.join(map(str, known))})"
            )
    for section in ARGUMENTS:
        known = list(OmegaConf.select(reference, section))
        for key in OmegaConf.select(recipe, section):
            if key not in known:
                raise UserError(f"config={path}: {section}.{key} is not built here{nearest(key, known)}")
    recipe.generator.args.input_channels = 3 + 3 * len(guides_of(recipe))
    return recipe


def guides_of(recipe: DictConfig) -> list[str]:
    """Folders of the guides, in order."""
    return [recipe.training_dataset[key] for key in GUIDES if recipe.training_dataset.get(key)]
