"""Generating absent modalities by diffusion, conditioned on the ones that are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from lacunar.arguments import above
from lacunar.errors import ConfigError, did_you_mean
from lacunar.generation.base import Completer
from lacunar.generation.diffusion_network import Denoiser
from lacunar.generation.diffusion_schedule import SAMPLERS, TIMES, NoiseSchedule
from lacunar.generation.diffusion_sde import SMALLEST_TIME, euler_maruyama, noise_scale, score_loss
from lacunar.generation.fitting import fit_network, hold_back, random_sources
from lacunar.generation.whitening import Whitening

__all__ = ["CONDITION_NOISES", "DiffusionCompleter"]

CONDITION_NOISES = ("none", "shared", "independent")
Context = tuple[Tensor, Tensor]


class DiffusionCompleter(Completer):
    """Fills an absent modality with draws from a diffusion model that is conditioned on any others.

    One network for all modalities and all sets of sources works on principal components of unit variance. Every row
    starts from the same noise, which ``seed`` fixes: a row's filling depends on nothing but the row, and repeats
    exactly. An even number of draws comes in pairs of opposite noise, whose mean has less of it.

    Args:
        samples: draws that are averaged. One is a sample, with all the spread of what cannot be known; many come near
            to the conditional mean, which is what squared errors reward.
        sampler: ``"ddim"`` or ``"ddpm"`` of the package diffusers, see :class:`NoiseSchedule`.
        steps: network evaluations of a draw.
        variant: ``"imder"`` is the variance-exploding process of the published generator with an Euler-Maruyama
            sampler, which needs 100 steps or more; ``sampler`` then means nothing, and diffusers is not needed.
        sigma: of that process.
        cond_noise: noise on the sources, in that process: ``"none"``; ``"shared"`` trains with the noise of the target
            and draws fresh noise to sample, as released; ``"independent"`` draws fresh noise for both.
        reduction: of that process's loss over numbers: ``"mean"``, or as released ``"sum"``.
        condition_dropout: how often training hides all sources.
        guidance: how far beyond what the sources say to go; 1 goes exactly there and costs half as much.
        width: most principal components of a modality.
        hidden: width of the network.
        updates: training steps.
        batch_size: rows a training step.
        lr: highest learning rate.
        val_share: part of the training rows that chooses the best state.
        seed: of everything random.

    Raises:
        ConfigError: an unknown option or an impossible number.
    """

    name: ClassVar[str] = "diffusion"

    def __init__(
        self,
        samples: int = 8,
        sampler: str = "ddim",
        steps: int = 25,
        *,
        variant: str | None = None,
        sigma: float = 25.0,
        cond_noise: str = "none",
        reduction: str = "mean",
        condition_dropout: float = 0.1,
        guidance: float = 1.0,
        width: int = 64,
        hidden: int = 128,
        updates: int = 800,
        batch_size: int = 256,
        lr: float = 2e-3,
        val_share: float = 0.15,
        seed: int = 0,
    ):
        super().__init__(seed)
        for name, value, known in (
            ("sampler", sampler, SAMPLERS), ("variant", variant, (None, "imder")),
            ("cond_noise", cond_noise, CONDITION_NOISES), ("reduction", reduction, ("mean", "sum")),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(f"DiffusionCompleter: unknown {name} {value!r}.{did_you_mean(value, known)}")
        numbers = {"samples": samples, "steps": steps, "width": width, "hidden": hidden, "batch_size": batch_size}
        for name, number in numbers.items():
            if number < 1:
                raise ConfigError(f"DiffusionCompleter: {name}: expected a number from 1, got {number}.")
        above(0, lr=lr)
        if not 0 <= condition_dropout < 1 or not 0 < val_share < 1 or sigma <= 1 or updates < 0:
            raise ConfigError(
                "DiffusionCompleter: expected condition_dropout in [0, 1), val_share in (0, 1), sigma above 1 and "
                f"updates from 0, got {condition_dropout}, {val_share}, {sigma} and {updates}."
            )
        self.samples, self.sampler, self.steps, self.variant = samples, sampler, steps, variant
        self.sigma, self.cond_noise, self.reduction = sigma, cond_noise, reduction
        self.condition_dropout, self.guidance = condition_dropout, guidance
        self.width, self.hidden, self.updates = width, hidden, updates
        self.batch_size, self.lr, self.val_share = batch_size, lr, val_share

    # ------------------------------------------------------------------ fitting

    def _build(self, sizes: list[int], classes: int | None) -> None:
        widths = [min(self.width, size) for size in sizes]
        self.whitenings = nn.ModuleList(Whitening(size, width) for size, width in zip(sizes, widths))
        self.network = Denoiser(widths, self.hidden)

    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        schedule = None if self.variant == "imder" else NoiseSchedule(self.sampler)
        for m, view in enumerate(views):
            self._whitening(m).fit(view[present[:, m]])
        codes = self._codes(views, present)
        generator, fixed = self.generator(), torch.Generator()
        M = len(views)

        def loss_on(rows: Tensor, draws: torch.Generator, targets: list[int]) -> Tensor:
            losses = []
            for m in targets:
                chosen = rows[present[rows, m]]
                if len(chosen):
                    values, sources = [code[chosen] for code in codes], self._sources(present[chosen], m, draws)
                    losses.append(self._loss(schedule, values, sources, m, draws))
            return torch.stack(losses).mean() if losses else codes[0].new_zeros(())

        turn = [0]

        def loss(rows: Tensor) -> Tensor:
            turn[0] += 1
            return loss_on(rows, generator, [turn[0] % M])

        def validate(rows: Tensor) -> float:
            fixed.manual_seed(self.seed + 1)  # the same noise at every look
            return float(torch.stack([loss_on(rows, fixed, list(range(M))) for _ in range(4)]).mean())

        train, kept = hold_back(len(present), self.val_share, generator)
        parts = train.to(present.device), kept.to(present.device)
        fit_network(
            self.network, loss, validate, parts, steps=self.updates, batch_size=self.batch_size, lr=self.lr,
            generator=generator,
        )  # fmt: skip

    def _sources(self, present: Tensor, target: int, generator: torch.Generator) -> Tensor:
        """What training conditions on: some of what each row has besides the target, now and then nothing."""
        others = present.clone()
        others[:, target] = False
        kept = torch.rand(len(present), 1, generator=generator) >= self.condition_dropout
        return random_sources(others, generator) & kept.to(present.device)

    def _loss(
        self, schedule: NoiseSchedule | None, values: list[Tensor], sources: Tensor, m: int, generator: torch.Generator
    ) -> Tensor:
        clean = values[m]
        n = len(clean)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        if schedule is None:
            time = SMALLEST_TIME + (1 - SMALLEST_TIME) * torch.rand(n, generator=generator).to(clean)
            scale = noise_scale(time, self.sigma)[:, None]
            values = self._noised(values, scale, noise if self.cond_noise == "shared" else None, generator)
            context = self.network.context(values, sources, m)
            score = self._score(clean + scale * noise, time, context, m)
            return score_loss(score, noise, scale, self.reduction)
        time = torch.randint(TIMES, (n,), generator=generator).to(clean.device)
        noised = schedule.noised(clean, noise, time)
        made = self._clean(schedule, noised, time, self.network.context(values, sources, m), m)
        # Errors count as much as they do in the columns that the components stand for.
        weight = self._whitening(m).back.square().mean(1)
        return ((made - clean).square() @ weight).mean() / weight.sum().clamp_min(1e-12)

    # ------------------------------------------------------------------ filling

    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        schedule = None if self.variant == "imder" else NoiseSchedule(self.sampler)
        codes = self._codes(views, present)
        filled = []
        for m, view in enumerate(views):
            made = torch.zeros_like(view)
            others = present.clone()
            others[:, m] = False
            rows = (~present[:, m] & others.any(1)).nonzero().squeeze(1)
            if len(rows):
                draws = self._draws(schedule, [code[rows] for code in codes], others[rows], m)
                made = made.index_copy(0, rows, self._whitening(m).decode(draws.mean(1)).to(made))
            filled.append(made)
        return filled

    def _draws(self, schedule: NoiseSchedule | None, values: list[Tensor], sources: Tensor, m: int) -> Tensor:
        """``(n, samples, d)`` draws of components of one modality."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.samples, self.network.sizes[m])

        def shared() -> Tensor:
            # One noise for all rows; the second half of the draws gets the opposite of the first.
            half = torch.randn((self.samples + 1) // 2, shape[1], generator=generator).to(values[m])
            return torch.cat([half, -half])[: self.samples]

        first = shared().expand(len(sources), *shape)
        if schedule is None:
            score = self._score_of_draws(values, sources, m, generator)
            return euler_maruyama(score, first, self.steps, self.sigma, noise=shared)
        contexts = [self._context(values, sources, m)]
        if self.guidance != 1:
            contexts.append(self._context(values, torch.zeros_like(sources), m))

        def predict(x: Tensor, time: Tensor) -> Tensor:
            made = [self._clean(schedule, x, time.to(x.device).expand(1, 1), context, m) for context in contexts]
            return made[0] if len(made) == 1 else made[1] + self.guidance * (made[0] - made[1])

        return schedule.sample(predict, first, self.steps, shared)

    def _score_of_draws(
        self, values: list[Tensor], sources: Tensor, m: int, generator: torch.Generator
    ) -> Callable[[Tensor, Tensor], Tensor]:
        clean = self._context(values, sources, m) if self.cond_noise == "none" else None

        def score(x: Tensor, time: Tensor) -> Tensor:
            context = clean
            if context is None:
                noised = self._noised(values, noise_scale(time, self.sigma), None, generator, alike=True)
                context = self._context(noised, sources, m)
            return self._score(x, time.to(x).expand(1, 1), context, m)

        return score

    def _clean(self, schedule: NoiseSchedule, x: Tensor, time: Tensor, context: Context, m: int) -> Tensor:
        """The value before noise. The network adds to what would be right for unrelated components of unit variance,
        so that little noise needs little of it."""
        signal = schedule.signal.to(x)[time.long()][..., None]
        return signal.sqrt() * x + (1 - signal).sqrt() * self.network(x, time.float() / TIMES, context, m)

    def _score(self, x: Tensor, time: Tensor, context: Context, m: int) -> Tensor:
        scale = noise_scale(time, self.sigma)[..., None]
        # The network predicts the noise, from an input of about unit variance at every time.
        return -self.network(x / (1 + scale**2).sqrt(), time, context, m) / scale

    def _noised(
        self,
        values: list[Tensor],
        scale: Tensor,
        noise: Tensor | None,
        generator: torch.Generator,
        alike: bool = False,
    ) -> list[Tensor]:
        """The sources with the noise of the process on them, if the options ask for it."""
        if self.cond_noise == "none":
            return values
        noised = []
        for rows in values:
            own = noise
            if own is None or own.shape[1] < rows.shape[1]:
                own = torch.randn(1 if alike else len(rows), rows.shape[1], generator=generator).to(rows)
            noised.append(rows + scale * own[:, : rows.shape[1]])
        return noised

    def _context(self, values: list[Tensor], sources: Tensor, m: int) -> Context:
        hidden, direct = self.network.context(values, sources, m)
        return hidden[:, None], direct[:, None]

    def _codes(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        codes = []
        for m, view in enumerate(views):
            has = present[:, m, None]
            codes.append(torch.where(has, self._whitening(m).encode(torch.where(has, view, 0.0)), 0.0))
        return codes

    def _whitening(self, m: int) -> Whitening:
        return self.whitenings[m]  # type: ignore[return-value]
