"""Generating a modality from others through flows that share a latent space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lacunar.errors import ConfigError, DataError, did_you_mean
from lacunar.generation.fitting import random_sources
from lacunar.generation.flow_decoder import Combine, make_decoder
from lacunar.generation.flow_prior import ClassPrior
from lacunar.generation.flow_transforms import Flow
from lacunar.models.configurable import Configurable
from lacunar.parallel import total, world_size

__all__ = ["FREEZES", "FlowTransfer"]

FREEZES = ("flows", "all", "none")


class FlowTransfer(Configurable):
    """One flow per modality into a latent space with a common class-conditional prior (Eq. 5).

    A missing modality r is what ``flow_r^-1(flow_a(h_a))`` gives for the available sources a, combined over them and
    decoded. Works for any number of modalities, and on vectors or sequences of equal length. For training with a
    backbone, add :meth:`nll` to the task loss and put :meth:`complete` in front of the backbone.

    The negative log-likelihood needs classes; completing never does.

    Args:
        features: channels C of every modality's features.
        modalities: number of modalities M.
        classes: classes of the prior.
        flow: ``"coupling-lu"``, ``"alternate"`` or ``"released"``, see :class:`Flow`.
        steps: steps of each flow; the paper has 32, which vectors do not need.
        hidden: width of the coupling and decoder networks.
        combine: ``"mean"``, ``"gate"`` or ``"concat"``, see :class:`Combine`.
        decoder: ``"residual"``, ``"attention"`` (the published one) or ``"identity"``.
        blocks: blocks of the attention decoder; 20 in the paper.
        out: numbers each decoder gives, when they are not C; then only :meth:`generate` can be used.
        through: where the gradient of what is generated goes: ``"decoder"``, as released (flows and sources are
            detached), or ``"all"``.
        bound: largest absolute image under an inverse flow; flows of samples unlike the training data can give
            numbers without measure, which no decoder should see. No bound when left out.
        limit: bound on the absolute log scale of one coupling.
        clamp_zero: as released, a likelihood beyond zero bits per dimension is cut off, and its gradient with it.
        variant: ``"released"`` sets what the released code of the published flow does: couplings without mixing or
            swap, a likelihood cut off at zero, and sources joined by a linear map.

    Raises:
        ConfigError: an unknown option.
        MissingExtraError: without the package zuko.
    """

    def __init__(
        self,
        features: int,
        modalities: int,
        classes: int = 1,
        *,
        flow: str = "coupling-lu",
        steps: int = 6,
        hidden: int = 64,
        combine: str = "mean",
        decoder: str = "residual",
        blocks: int = 4,
        out: Sequence[int] | None = None,
        through: str = "decoder",
        bound: float | None = None,
        limit: float = 0.5,
        clamp_zero: bool = False,
        variant: str | None = None,
    ):
        super().__init__()
        if variant not in (None, "released"):
            raise ConfigError(f"Unknown variant {variant!r}.{did_you_mean(variant, ['released'])}")
        if through not in ("decoder", "all"):
            raise ConfigError(f"through: expected 'decoder' or 'all', got {through!r}.")
        if modalities < 1 or classes < 1:
            raise ConfigError(f"Expected at least one modality and one class, got {modalities} and {classes}.")
        if out is not None and len(out) != modalities:
            raise ConfigError(f"out: expected one width for each of {modalities} modalities, got {len(out)}.")
        if variant == "released":
            flow, combine, clamp_zero = "released", "concat", True
        self.features, self.modalities, self.classes = features, modalities, classes
        self.through, self.clamp_zero, self.bound = through, clamp_zero, bound
        widths: Sequence[int | None] = [None] * modalities if out is None else out
        self.same_width = all(width in (None, features) for width in widths)
        self.flows = nn.ModuleList(Flow(features, flow, steps, hidden, limit) for _ in range(modalities))
        self.prior = ClassPrior(features, classes)
        self.combines = nn.ModuleList(Combine(features, modalities, combine) for _ in range(modalities))
        self.decoders = nn.ModuleList(
            make_decoder(decoder, features, modalities, width, hidden, blocks) for width in widths
        )

    def latents(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of what is there.

        Args:
            h: features ``(P, M, C)`` or ``(P, M, C, *spatial)``; those of absent modalities are not read.
            present: presence, boolean, shape ``(P, M)``.

        Returns:
            Latents like ``h`` with the spatial axes as one, and log determinants ``(P, M)``; zeros where absent.
        """
        self._check(h, present)
        h = h.flatten(3) if h.ndim > 3 else h
        latents, logdets = [], []
        for m, flow in enumerate(self.flows):
            rows = present[:, m].nonzero().squeeze(1)
            z, logdet = flow(h[rows, m])
            latents.append(z.new_zeros(h[:, m].shape).index_copy(0, rows, z))
            logdets.append(logdet.new_zeros(len(h)).index_copy(0, rows, logdet))
        return torch.stack(latents, 1), torch.stack(logdets, 1)

    def nll(self, h: Tensor, present: Tensor, classes: Tensor | None = None) -> Tensor:
        """Negative log-likelihood of what is there, Eq. 5, in bits per dimension.

        Args:
            h: as in :meth:`latents`.
            present: as in :meth:`latents`.
            classes: class of each row ``(P,)``, -1 where not known, or one-hot rows ``(P, K)``.

        Returns:
            A scalar: summed over modalities, averaged over the rows that have each. Zero when nothing is there.
        """
        z, logdet = self.latents(h, present)
        return self.nll_of(z, logdet, present, classes)

    def nll_of(self, z: Tensor, logdet: Tensor, present: Tensor, classes: Tensor | None = None) -> Tensor:
        """As :meth:`nll`, from what :meth:`latents` returned."""
        nll = z.new_zeros(())
        bits = math.log(2) * math.prod(z.shape[2:])
        for m in range(self.modalities):
            rows = present[:, m].nonzero().squeeze(1)
            own = None if classes is None else classes[rows]
            count = total(z.new_tensor(float(len(rows)))).clamp(min=1) / world_size()
            score = (self.prior.log_prob(z[rows, m], own) + logdet[rows, m]).sum() / count / bits
            nll = nll + ((-score).clamp_min(0) if self.clamp_zero else -score)
        return nll

    def complete(self, h: Tensor, present: Tensor) -> Tensor:
        """The features with those of absent modalities generated; those that are there stay as they are.

        Args:
            h: as in :meth:`latents`.
            present: as in :meth:`latents`. A row with nothing gets what the centre of the prior decodes to.

        Returns:
            Of the shape of ``h``.
        """
        if not self.same_width:
            raise ConfigError("The decoders give other widths than the features have: use generate().")
        z, _ = self._sources(h, present)
        filled = []
        for r in range(self.modalities):
            rows = (~present[:, r]).nonzero().squeeze(1)
            made = self.generate(z[rows], present[rows], r).to(h.dtype).view(len(rows), *h.shape[2:])
            filled.append(torch.zeros_like(h[:, r]).index_copy(0, rows, made))
        seen = present.view(*present.shape, *[1] * (h.ndim - 2))
        return torch.where(seen, h, torch.stack(filled, 1))

    def generate(self, z: Tensor, sources: Tensor, target: int) -> Tensor:
        """One modality from the latents of others.

        Args:
            z: latents ``(n, M, C)`` or ``(n, M, C, T)``.
            sources: which of them to use, boolean, shape ``(n, M)``; the target's own is never used.
            target: number of the modality that is made.

        Returns:
            ``(n, out)`` or ``(n, out, T)``.
        """
        sources = sources.clone()
        sources[:, target] = False
        image = self.image(z, sources, target)
        image = image[..., None] if z.ndim == 3 else image
        made = self.decoders[target](image.transpose(1, 2), sources).transpose(1, 2)
        return made.squeeze(2) if z.ndim == 3 else made

    def image(self, z: Tensor, sources: Tensor, target: int) -> Tensor:
        """What the sources become under the target's inverse flow, combined, before any decoder.

        Args:
            z: as in :meth:`generate`.
            sources: as in :meth:`generate`.
            target: as in :meth:`generate`.

        Returns:
            ``(n, C)`` or ``(n, C, T)``.
        """
        sources = sources.clone()
        sources[:, target] = False
        if self.through == "decoder":
            z = z.detach()
        flow = self.flows[target]
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.through == "all"):
            row, source = sources.nonzero(as_tuple=True)
            made = flow.inverse(z[row, source])  # type: ignore[operator]
            made = made if self.bound is None else made.clamp(-self.bound, self.bound)
            images = z.new_zeros(z.shape).index_put((row, source), made.to(z.dtype))
        images = images[..., None] if images.ndim == 3 else images
        combined = self.combines[target](images.transpose(2, 3), sources | _own(sources, target))
        nothing = ~sources.any(1)
        if bool(nothing.any()):
            centre = flow.inverse(self.prior.centre(z[:, 0])[None])  # type: ignore[operator]
            centre = (centre[..., None] if centre.ndim == 2 else centre).transpose(1, 2)
            combined = torch.where(nothing[:, None, None], centre.detach(), combined)
        combined = combined.transpose(1, 2)
        return combined.squeeze(2) if z.ndim == 3 else combined

    def reconstruction(
        self,
        h: Tensor,
        present: Tensor,
        truth: Sequence[Tensor] | None = None,
        generator: torch.Generator | None = None,
        z: Tensor | None = None,
    ) -> Tensor:
        """Squared error of observed modalities as generated from others, legitimate because they were observed.

        Each row makes each of its modalities from a random non-empty set of its others.

        Args:
            h: as in :meth:`latents`.
            present: as in :meth:`latents`.
            truth: what each decoder should give, ``(P, out_m)`` each; the features themselves when left out.
            generator: of the random sets.
            z: what :meth:`latents` returned for ``h``, if it is at hand.

        Returns:
            A scalar: mean over numbers and rows, averaged over the modalities that could be made.
        """
        z = self._sources(h, present)[0] if z is None else z
        losses = []
        for r in range(self.modalities):
            others = present.clone()
            others[:, r] = False
            rows = (present[:, r] & others.any(1)).nonzero().squeeze(1)
            if not len(rows):
                continue
            made = self.generate(z[rows], random_sources(others[rows], generator), r)
            wanted = h[rows, r].detach().flatten(2) if truth is None and h.ndim > 3 else None
            if wanted is None:
                wanted = h[rows, r].detach() if truth is None else truth[r][rows]
            losses.append((made - wanted).square().mean())
        return torch.stack(losses).mean() if losses else z.new_zeros(())

    def freeze(self, policy: str = "flows") -> FlowTransfer:
        """Which parts learn from here on, for the second stage of training.

        Args:
            policy: ``"flows"``, flows and prior stay as they are and decoders learn; ``"all"``, nothing learns;
                ``"none"``, everything does.
        """
        if policy not in FREEZES:
            raise ConfigError(f"Unknown policy {policy!r}.{did_you_mean(policy, FREEZES)}")
        for name, parameter in self.named_parameters():
            of_flow = name.startswith(("flows.", "prior."))
            parameter.requires_grad_(policy == "none" or (policy == "flows" and not of_flow))
        return self

    def _sources(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.through == "all"):
            return self.latents(h, present)

    def _check(self, h: Tensor, present: Tensor) -> None:
        expected = (self.modalities, self.features)
        if h.ndim < 3 or tuple(h.shape[1:3]) != expected or present.shape != h.shape[:2]:
            raise DataError(
                f"Expected features (rows, {self.modalities}, {self.features}, ...) and presence "
                f"(rows, {self.modalities}), got {tuple(h.shape)} and {tuple(present.shape)}."
            )


def _own(sources: Tensor, target: int) -> Tensor:
    """Marks the target itself in rows without a source, so that no softmax meets an empty row."""
    marks = torch.zeros_like(sources)
    marks[:, target] = ~sources.any(1)
    return marks
