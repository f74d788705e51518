"""The training step of few-shot patch-based stylization, and its state.

D:  (D(G(x)))^2 + (D(style) - 1)^2                  a style patch from elsewhere in the key frame
G:  4 |G(x) - y| + 6 (F(G(x)) - F(y))^2 + 0.5 (D(G(x)) - 1)^2        F: features of appearance
"""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional

from static_dynamic.stylize.networks import Discriminator, Generator, build_generator

CRITERIA = {"L1Loss": functional.l1_loss, "MSELoss": functional.mse_loss}
# what a pixel beyond the mask weighs (mended rules): little, yet it has to become something
BEYOND_MASK = 0.1


class StyleTrainer:
    """Both networks, their optimizers and the step.

    Parameters
    ----------
    recipe
        Settings (``static_dynamic.stylize.training_config``).
    features
        Images -> features (``stylize.features``).
    masks_weigh
        Mended rules: beyond the mask the target stands in for nearly all of the output, and one forward
        pass serves both networks. The original's: the mask is ignored, and a second forward pass, equal
        to the first, moves the running statistics again.
    """

    def __init__(
        self, recipe: DictConfig, features: nn.Module, *, masks_weigh: bool, device: torch.device, seed: int
    ):
        settings = recipe.trainer
        # seeded initial weights, without touching the caller's generator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator: Generator = build_generator(**recipe.generator.args).to(device)
            self.discriminator = Discriminator(**recipe.discriminator.args).to(device)
        self.features = features.to(device)
        self.masks_weigh, self.device = masks_weigh, device
        self.optimizers = {
            "generator": _adam(self.generator, recipe.opt_generator),
            "discriminator": _adam(self.discriminator, recipe.opt_discriminator),
        }
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.image_loss = CRITERIA[settings.reconstruction_criterion]
        self.adversarial_loss = CRITERIA[settings.adversarial_criterion]
        self.weights = {
            "image": settings.reconstruction_weight if settings.use_image_loss else 0.0,
            "features": recipe.perception_loss.weight,
            "adversarial": settings.adversarial_weight,
        }

    def step(
        self, pre: Tensor, post: Tensor, already: Tensor, mask: Tensor, rate: float = 1.0
    ) -> dict[str, Tensor]:
        """Train both networks on one batch, with `rate` times the learning rates; return the losses and the
        generated batch."""
        pre, post, already, mask = (t.to(self.device) for t in (pre, post, already, mask))
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = rate * self.rates[name]
        self.generator.train(), self.discriminator.train()

        fake = self._weighed(self.generator(pre), post, mask)
        scores_fake, scores_real = self.discriminator(fake.detach()), self.discriminator(already)
        loss_d = self._adversarial(scores_fake, 0.0) + self._adversarial(scores_real, 1.0)
        self._update("discriminator", loss_d)

        if not self.masks_weigh:
            fake = self._weighed(self.generator(pre), post, mask)
        with torch.no_grad():
            wanted = self.features(post)
        # D's own weights need no gradient here
        self.discriminator.requires_grad_(False)
        losses = {
            "image": self.image_loss(fake, post),
            "features": functional.mse_loss(self.features(fake), wanted),
            "adversarial": self._adversarial(self.discriminator(fake), 1.0),
        }
        loss_g = sum(self.weights[name] * loss for name, loss in losses.items())
        self._update("generator", loss_g)
        self.discriminator.requires_grad_(True)
        losses |= {"generator": loss_g, "discriminator": loss_d}
        return {name: loss.detach() for name, loss in losses.items()} | {"generated": fake.detach()}

    def _weighed(self, fake: Tensor, post: Tensor, mask: Tensor) -> Tensor:
        if not self.masks_weigh:
            return fake
        return post + (BEYOND_MASK + (1 - BEYOND_MASK) * mask) * (fake - post)

    def _adversarial(self, scores: Tensor, wanted: float) -> Tensor:
        return self.adversarial_loss(scores, torch.full_like(scores, wanted))

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def state_dict(self) -> dict:
        """All that a training that goes on needs: patches depend on the step's number alone, and nothing
        else draws."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        """Take up a state that `state_dict` gave."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


def _adam(net: nn.Module, settings: DictConfig) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), **OmegaConf.to_container(settings.args))
