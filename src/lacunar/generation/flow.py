"""Generating absent modalities with flows into a latent space that all modalities share."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lacunar.arguments import above
from lacunar.errors import ConfigError, did_you_mean
from lacunar.generation.base import Completer
from lacunar.generation.fitting import fit_network, hold_back, random_sources
from lacunar.generation.flow_decoder import COMBINES
from lacunar.generation.flow_prior import class_bins
from lacunar.generation.flow_transfer import FlowTransfer
from lacunar.generation.flow_transforms import FLOWS
from lacunar.generation.whitening import Whitening, align

__all__ = ["FlowCompleter"]

RECONS = ("observed", "none")
#: Standard deviations that a component, or an image of one under a flow, is cut off at. Without it single samples
#: unlike the training data come out of an inverse flow thousands of deviations away.
BOUND = 6.0
#: Fewest rows that a decoder starts from a regression on.
FEWEST = 10


class FlowCompleter(Completer):
    """Fills an absent modality with what the flows of the available ones carry over, decoded.

    Every modality becomes principal components of unit variance, of one common width (narrower ones are padded, with
    noise for the likelihood and with zeros otherwise). Flows with a common class-conditional prior take these to a
    shared latent space (Eq. 5); the inverse flow of the missing modality takes the latents of the others back; a
    linear map, which starts as the way back from the components, and a small network beside it give the values.
    What comes out stays within the range that was observed. Deterministic.

    The likelihood alone matches distributions, not samples: with ``recon="none"`` a filling is a plausible one of
    the right kind, not the most probable one. Labels are used in fitting, for the likelihood alone; with none there
    is one class.

    Args:
        flow: ``"coupling-lu"``, ``"alternate"`` or ``"released"``, see
            :class:`lacunar.generation.flow_transforms.Flow`.
        combine: how several sources become one: ``"mean"``, ``"gate"`` or ``"concat"``.
        recon: ``"observed"`` trains decoders on cells that were observed, made from the others of their rows;
            ``"none"`` trains by likelihood alone, as the paper does, and what is generated is only mapped back.
        through: where the gradient of the reconstruction goes: ``"all"``, flows too, or ``"decoder"`` alone.
        variant: ``"released"`` sets what the released code of the published flow does: couplings without mixing or
            swap, a likelihood cut off at zero bits, several sources joined by a linear map, detached flows.
        steps: steps of each flow. The paper has 32; on vectors more than a few only take longer.
        width: most components of a modality.
        hidden: width of the coupling and decoder networks.
        bins: classes that a continuous target is cut into, at quantiles.
        prior_weight: weight of the likelihood beside the reconstruction.
        align: start from codes that are rotated to resemble each other and from decoders that regress on them,
            instead of from principal components as they come. Not with ``recon="none"`` or as released.
        clamp_zero: cut the likelihood off at zero bits per dimension.
        updates: training steps.
        batch_size: rows a training step.
        lr: highest learning rate.
        val_share: part of the training rows that chooses the best state.
        seed: of everything random.

    Raises:
        ConfigError: an unknown option or an impossible number.
        MissingExtraError: in :meth:`fit`, without the package zuko.
    """

    name: ClassVar[str] = "flow"

    def __init__(
        self,
        flow: str = "coupling-lu",
        combine: str = "mean",
        *,
        recon: str = "observed",
        through: str = "all",
        variant: str | None = None,
        steps: int = 4,
        width: int = 32,
        hidden: int = 32,
        bins: int = 5,
        prior_weight: float = 0.1,
        align: bool = True,
        clamp_zero: bool = False,
        updates: int = 250,
        batch_size: int = 256,
        lr: float = 2e-3,
        val_share: float = 0.15,
        seed: int = 0,
    ):
        super().__init__(seed)
        for name, value, known in (
            ("flow", flow, FLOWS), ("combine", combine, COMBINES), ("recon", recon, RECONS),
            ("through", through, ("all", "decoder")), ("variant", variant, (None, "released")),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(f"FlowCompleter: unknown {name} {value!r}.{did_you_mean(value, known)}")
        for name, number in (
            ("steps", steps), ("width", width), ("hidden", hidden), ("bins", bins), ("batch_size", batch_size)
        ):  # fmt: skip
            if number < 1:
                raise ConfigError(f"FlowCompleter: {name}: expected a number from 1, got {number}.")
        above(0, lr=lr)
        if updates < 0 or prior_weight < 0 or not 0 < val_share < 1:
            raise ConfigError(
                "FlowCompleter: expected updates and prior_weight from 0 and val_share in (0, 1), got "
                f"{updates}, {prior_weight} and {val_share}."
            )
        if variant == "released":
            flow, combine, through, clamp_zero, align = "released", "concat", "decoder", True, False
        self.flow, self.combine, self.recon, self.through = flow, combine, recon, through
        self.variant, self.clamp_zero, self.prior_weight = variant, clamp_zero, prior_weight
        self.align = align and recon == "observed"
        self.steps, self.width, self.hidden, self.bins = steps, width, hidden, bins
        self.updates, self.batch_size, self.lr, self.val_share = updates, batch_size, lr, val_share

    # ------------------------------------------------------------------ fitting

    def _build(self, sizes: list[int], classes: int | None) -> None:
        width = min(self.width, max(sizes))
        # The released couplings need a channel to copy and one to change.
        width = max(width, 2) if self.flow == "released" else width
        self.whitenings = nn.ModuleList(Whitening(size, width) for size in sizes)
        self.transfer = FlowTransfer(
            width,
            len(sizes),
            classes or self.bins,
            flow=self.flow,
            steps=self.steps,
            hidden=self.hidden,
            combine=self.combine,
            out=sizes,
            through=self.through,
            bound=BOUND,
            clamp_zero=self.clamp_zero,
        )

    def _fit(self, views: list[Tensor], present: Tensor, target: Tensor | None) -> None:
        for m, view in enumerate(views):
            rows = view[present[:, m]]
            self._whitening(m).fit(rows)
            self._keep(f"lowest{m}", rows.min(0).values)
            self._keep(f"highest{m}", rows.max(0).values)
        labels = target if self.classes is None else target.to(torch.int64)  # type: ignore[union-attr]
        classes = class_bins(labels, len(present), self.bins)[0].to(present.device)
        generator, fixed = self.generator(), torch.Generator()
        codes = self._start(views, present, generator)
        padding = torch.stack([self._whitening(m).padding for m in range(len(views))])
        transfer = self.transfer

        def likelihood(rows: Tensor, draws: torch.Generator) -> Tensor:
            # Padding without noise would have no density.
            noise = torch.randn(len(rows), *padding.shape[:2], generator=draws).to(codes)
            padded = codes[rows] + torch.einsum("nmk,mkl->nml", noise, padding)
            return transfer.nll(padded, present[rows], classes[rows])

        def reconstruction(rows: Tensor, draws: torch.Generator) -> Tensor:
            return transfer.reconstruction(codes[rows], present[rows], [view[rows] for view in views], draws)

        def loss(rows: Tensor) -> Tensor:
            total = codes.new_zeros(())
            if self.prior_weight or self.recon == "none":
                total = (self.prior_weight or 1.0) * likelihood(rows, generator)
            return total + reconstruction(rows, generator) if self.recon == "observed" else total

        def validate(rows: Tensor) -> float:
            fixed.manual_seed(self.seed + 1)  # the same draws at every look
            return float((reconstruction if self.recon == "observed" else likelihood)(rows, fixed))

        train, kept = hold_back(len(present), self.val_share, generator)
        parts = train.to(present.device), kept.to(present.device)
        fit_network(
            transfer, loss, validate, parts, steps=self.updates, batch_size=self.batch_size, lr=self.lr,
            generator=generator,
        )  # fmt: skip

    def _start(self, views: list[Tensor], present: Tensor, generator: torch.Generator) -> Tensor:
        """Where training starts from, and the codes of the training data.

        Flows start as one and the same map, so that images are the codes of the sources. With ``align`` these are
        rotated to resemble each other, and decoders start as the ridge regression on them; without, as the way back
        from principal components.
        """
        codes = self._codes(views, present)
        if self.align:
            for m, rotation in enumerate(align(codes, present)):
                self._whitening(m).rotate(rotation)
            codes = self._codes(views, present)
        z, _ = self.transfer.latents(codes, present)
        with torch.no_grad():
            for m, view in enumerate(views):
                linear = self.transfer.decoders[m].linear
                weight, bias = self._whitening(m).back.T, self._whitening(m).center
                others = present.clone()
                others[:, m] = False
                rows = (present[:, m] & others.any(1)).nonzero().squeeze(1)
                if self.align and len(rows) >= FEWEST:
                    sources = random_sources(others[rows], generator)
                    weight, bias = _ridge(self.transfer.image(z[rows], sources, m), view[rows])
                linear.weight.copy_(weight)  # type: ignore[union-attr, operator]
                linear.bias.copy_(bias)  # type: ignore[union-attr, operator]
        return codes

    # ------------------------------------------------------------------ filling

    def _fill(self, views: list[Tensor], present: Tensor) -> list[Tensor]:
        codes = self._codes(views, present)
        z, _ = self.transfer.latents(codes, present)
        filled = []
        for m, view in enumerate(views):
            made = torch.zeros_like(view)
            others = present.clone()
            others[:, m] = False
            rows = (~present[:, m] & others.any(1)).nonzero().squeeze(1)
            if len(rows):
                values = self.transfer.generate(z[rows], others[rows], m)
                values = torch.minimum(torch.maximum(values, getattr(self, f"lowest{m}")), getattr(self, f"highest{m}"))
                made = made.index_copy(0, rows, values.to(made))
            filled.append(made)
        return filled

    def _codes(self, views: list[Tensor], present: Tensor) -> Tensor:
        """Principal components ``(N, M, C)``, zeros where absent."""
        codes = []
        for m, view in enumerate(views):
            has = present[:, m, None]
            rows = self._whitening(m).encode(torch.where(has, view, 0.0)).clamp(-BOUND, BOUND)
            codes.append(torch.where(has, rows, 0.0))
        return torch.stack(codes, 1)

    def _whitening(self, m: int) -> Whitening:
        return self.whitenings[m]  # type: ignore[return-value]


def _ridge(images: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(d, k)`` and shift ``(d,)`` of a cross-validated regression."""
    from sklearn.linear_model import RidgeCV

    fitted = RidgeCV(np.logspace(-2, 5, 15)).fit(images.cpu().double().numpy(), values.cpu().double().numpy())
    weight = torch.from_numpy(np.atleast_2d(fitted.coef_)).to(images)
    return weight, torch.from_numpy(np.atleast_1d(fitted.intercept_)).to(images)
