"""Noise schedule and samplers of the diffusion completer: those of the package diffusers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lacunar.errors import ConfigError, MissingExtraError, did_you_mean

__all__ = ["SAMPLERS", "NoiseSchedule"]

SAMPLERS = ("ddim", "ddpm")
#: Times that the noise schedule is cut into, and that the denoiser is trained at.
TIMES = 1000


class NoiseSchedule:
    """A variance-preserving schedule with squared-cosine signal, and a sampler that runs down it.

    At time t a clean x has become ``sqrt(a_t) x + sqrt(1 - a_t) noise``, with a_t from nearly 1 down to nearly 0.

    Args:
        sampler: ``"ddim"`` (deterministic given its first noise) or ``"ddpm"`` (fresh noise at every step).

    Raises:
        ConfigError: an unknown sampler.
        MissingExtraError: without the package diffusers.
    """

    def __init__(self, sampler: str = "ddim"):
        if sampler not in SAMPLERS:
            raise ConfigError(f"Unknown sampler {sampler!r}.{did_you_mean(sampler, SAMPLERS)}")
        self.sampler = sampler
        self.scheduler = _scheduler()

    @property
    def signal(self) -> Tensor:
        """What is left of the variance of the data at each time, ``(TIMES,)``."""
        return self.scheduler.alphas_cumprod

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """``clean (n, d)`` with noise as at ``time (n,)``."""
        return self.scheduler.add_noise(clean, noise, time)

    def sample(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        first: Tensor,
        steps: int,
        noise: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        """Clean samples from noise.

        Args:
            predict: ``predict(x, time) -> clean`` of what is noised at one time ``()``.
            first: standard normal noise, of any shape.
            steps: evaluations of ``predict``.
            noise: for ``"ddpm"``, what it adds at a step, of a shape that broadcasts to that of ``first``.
        """
        self.scheduler.set_timesteps(steps)
        x = first
        for time in self.scheduler.timesteps:
            options: dict[str, Any] = {}
            if self.sampler == "ddpm":
                options = {"eta": 1.0, "variance_noise": torch.randn_like(x) if noise is None else noise()}
            x = self.scheduler.step(predict(x, time), time, x, **options).prev_sample
        return x


def _scheduler() -> Any:
    try:
        # From its own module: `from diffusers import ...` goes through a table of everything there is.
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
    except ImportError as error:
        raise MissingExtraError("diffusers", "diffusion", "Generating modalities by diffusion") from error
    return DDIMScheduler(
        num_train_timesteps=TIMES, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False,
        timestep_spacing="trailing",
    )  # fmt: skip
