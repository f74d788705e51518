"""Training step of few-shot patch-based stylization (Texler et al.), and the state dict for resuming.

Losses of the discriminator D and the generator G, for a patch x with stylized patch y, and a stylized patch s
from elsewhere in the key frame; F are the features of the perceptual loss:

    D:  (D(G(x)))^2 + (D(s) - 1)^2
    G:  4 |G(x) - y| + 6 (F(G(x)) - F(y))^2 + 0.5 (D(G(x)) - 1)^2
"""

from typing import cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional

from static_dynamic.stylize.networks import Discriminator, Generator, build_generator

CRITERIA = {"L1Loss": functional.l1_loss, "MSELoss": functional.mse_loss}
BEYOND_MASK = 0.1
"""Weight of pixels outside the mask (corrected rules): low, but not 0, because they need some target."""


class StyleTrainer:
    """Train a generator and a discriminator, with one optimizer per network.

    If `mask_weights` (corrected rules), the mask weighs the losses: outside the mask, the output is replaced
    almost fully by the target. Both networks share one forward pass of the generator. Else (original rules)
    the mask is ignored, and a second, equal forward pass updates the running statistics again.
    """

    def __init__(
        self, config: DictConfig, features: nn.Module, mask_weights: bool, device: torch.device, seed: int
    ):
        settings = config.trainer
        # Draw the initial weights from the seed without changing torch's global random state.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator: Generator = build_generator(**config.generator.args).to(device)
            self.discriminator = Discriminator(**config.discriminator.args).to(device)
        self.features = features.to(device)
        self.mask_weights, self.device = mask_weights, device
        self.optimizers = {
            "generator": _adam(self.generator, config.opt_generator),
            "discriminator": _adam(self.discriminator, config.opt_discriminator),
        }
        self.rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in self.optimizers.items()}
        self.image_loss = CRITERIA[settings.reconstruction_criterion]
        self.adversarial_loss = CRITERIA[settings.adversarial_criterion]
        self.weights = {
            "image": settings.reconstruction_weight if settings.use_image_loss else 0.0,
            "features": config.perception_loss.weight,
            "adversarial": settings.adversarial_weight,
        }

    def step(
        self, pre: Tensor, post: Tensor, already: Tensor, mask: Tensor, rate: float = 1.0
    ) -> dict[str, Tensor]:
        """Train both networks on one batch; return a dict of the losses and the generated images.

        `pre` are input patches (B, 3 + 3 per guide, h, w), `post` their stylized patches (B, 3, h, w), and
        `already` stylized patches from elsewhere in the key frames, the discriminator's true examples
        (B, 3, h, w). `mask` is (B, 1, h, w) of 0 and 1, and `rate` is a factor of the learning rates.
        """
        pre, post, already, mask = (t.to(self.device) for t in (pre, post, already, mask))
        for name, optimizer in self.optimizers.items():
            optimizer.param_groups[0]["lr"] = rate * self.rates[name]
        self.generator.train(), self.discriminator.train()

        fake = self._weighed(self.generator(pre), post, mask)
        scores_fake, scores_real = self.discriminator(fake.detach()), self.discriminator(already)
        loss_d = self._adversarial(scores_fake, 0.0) + self._adversarial(scores_real, 1.0)
        self._update("discriminator", loss_d)

        if not self.mask_weights:
            fake = self._weighed(self.generator(pre), post, mask)
        with torch.no_grad():
            target = self.features(post)
        # Compute no gradients of the discriminator's weights while the generator is updated.
        self.discriminator.requires_grad_(False)
        losses = {
            "image": self.image_loss(fake, post),
            "features": functional.mse_loss(self.features(fake), target),
            "adversarial": self._adversarial(self.discriminator(fake), 1.0),
        }
        loss_g = sum(self.weights[name] * loss for name, loss in losses.items())
        self._update("generator", loss_g)
        self.discriminator.requires_grad_(True)
        losses |= {"generator": loss_g, "discriminator": loss_d}
        return {name: loss.detach() for name, loss in losses.items()} | {"generated": fake.detach()}

    def _weighed(self, fake: Tensor, post: Tensor, mask: Tensor) -> Tensor:
        if not self.mask_weights:
            return fake
        return post + (BEYOND_MASK + (1 - BEYOND_MASK) * mask) * (fake - post)

    def _adversarial(self, scores: Tensor, target: float) -> Tensor:
        return self.adversarial_loss(scores, torch.full_like(scores, target))

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    def state_dict(self) -> dict:
        """Return the weights of both networks and the states of both optimizers, to resume a training."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        """Load a state returned by `state_dict`."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


def _adam(net: nn.Module, settings: DictConfig) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), **cast(dict, OmegaConf.to_container(settings.args)))
