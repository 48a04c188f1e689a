"""Invertible networks between features and a latent space, made of zuko's transforms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from lacunar.errors import ConfigError, MissingExtraError, did_you_mean
from lacunar.models.configurable import Configurable

__all__ = ["FLOWS", "Flow", "require_zuko"]

FLOWS = ("coupling-lu", "alternate", "released")


def require_zuko() -> ModuleType:
    """The package zuko.

    Raises:
        MissingExtraError: when it is not installed.
    """
    try:
        import zuko
        import zuko.flows.coupling
        import zuko.transforms
    except ImportError as error:
        raise MissingExtraError("zuko", "flows", "Generating modalities with a flow") from error
    return zuko


class Flow(Configurable):
    """An invertible map of feature vectors, applied to every step of a sequence alike.

    Args:
        features: channels C.
        kind: what a step is made of. ``"coupling-lu"``: a fixed permutation, a learned mixing of all channels
            (zuko's LU transform) and an affine coupling. ``"alternate"``: affine couplings that change one half of
            the channels and the other half in turn, no mixing. ``"released"``: affine couplings that all change the
            second half and read the first, no mixing, as in the released code of the published flow; the first
            ``C // 2`` channels then pass through unchanged, whatever is learned.
        steps: how many steps.
        hidden: width of the two hidden layers of each coupling network.
        limit: bound on the absolute log scale of one coupling (not for ``"released"``, whose scale is
            ``sigmoid(raw + 2)``).
        seed: seed of the permutations. Flows that share it start as the same map.

    Raises:
        ConfigError: an unknown kind, no step, or ``"released"`` with a single channel.
        MissingExtraError: without the package zuko.
    """

    def __init__(
        self,
        features: int,
        kind: str = "coupling-lu",
        steps: int = 6,
        hidden: int = 64,
        limit: float = 1.5,
        seed: int = 0,
    ):
        super().__init__()
        if kind not in FLOWS:
            raise ConfigError(f"Unknown flow {kind!r}.{did_you_mean(kind, FLOWS)}")
        if steps < 1 or hidden < 1 or features < 1 or limit <= 0:
            raise ConfigError(
                f"A flow needs at least one channel, step and hidden unit and a positive limit, got "
                f"features={features}, steps={steps}, hidden={hidden}, limit={limit}."
            )
        if kind == "released" and features < 2:
            raise ConfigError("The released flow copies the first half of the channels: it needs at least 2, got 1.")
        require_zuko()
        generator = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = []
        for step in range(steps):
            if kind == "coupling-lu":
                layers.append(_Mixing(features, torch.randperm(features, generator=generator)))
            swap = kind == "alternate" and step % 2 == 1
            layers.append(_Coupling(features, hidden, swap, _released_scale if kind == "released" else _bounded(limit)))
        self.layers = nn.ModuleList(layers)
        self.features = features

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and the log absolute determinant of the Jacobian, summed over channels and time.

        Args:
            x: features ``(n, C)`` or ``(n, C, T)``.

        Returns:
            Latents of the same shape, and ``(n,)``.
        """
        if not len(x):  # zuko cannot sum over no rows; a row that is cut off again gives every weight a zero gradient
            z, logdet = self.forward(x.new_zeros(1, *x.shape[1:]))
            return z[:0], logdet[:0]
        x = x.movedim(1, -1)
        total = x.new_zeros(x.shape[:-1])
        for layer in self.layers:
            x, logdet = layer(x)
            total = total + logdet
        return x.movedim(-1, 1), total.flatten(1).sum(1) if total.ndim > 1 else total

    def inverse(self, z: Tensor) -> Tensor:
        """Features ``(n, C)`` or ``(n, C, T)`` of latents of the same shape."""
        if not len(z):
            return self.inverse(z.new_zeros(1, *z.shape[1:]))[:0]
        z = z.movedim(1, -1)
        for layer in reversed(self.layers):
            z = layer.inverse(z)  # type: ignore[operator]
        return z.movedim(-1, 1)


class _Coupling(nn.Module):
    """One affine coupling of zuko; starts as the map that its scale gives to raw parameters of zero."""

    def __init__(self, features: int, hidden: int, swap: bool, univariate: Callable[..., Transform]):
        super().__init__()
        couplings = require_zuko().flows.coupling
        self.cut, self.swap = features // 2, swap
        reads = torch.arange(features) < self.cut  # True in zuko: channels that are read, and stay as they are
        self.transform = couplings.GeneralCouplingTransform(
            features,
            mask=~reads if swap else reads,
            univariate=univariate,
            hidden_features=(hidden, hidden),
        )
        if hasattr(self.transform, "hyper"):
            nn.init.zeros_(self.transform.hyper[-1].weight)
            nn.init.zeros_(self.transform.hyper[-1].bias)
        else:  # one channel: an affine map without a network
            for parameter in self.transform.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._sliced().call_and_ladj(x)

    def inverse(self, y: Tensor) -> Tensor:
        return self._sliced().inv(y)

    def _sliced(self) -> Any:
        """zuko's transform; halves are taken as slices, whose gradients are several times cheaper than those of
        the lists of indices that it uses for arbitrary subsets of channels."""
        transform = self.transform()
        if hasattr(transform, "split"):
            transform.split, transform.merge = self._split, self._merge
        return transform

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x[..., : self.cut], x[..., self.cut :]
        return (second, first) if self.swap else (first, second)

    def _merge(self, kept: Tensor, changed: Tensor, shape: torch.Size) -> Tensor:
        return torch.cat((changed, kept) if self.swap else (kept, changed), dim=-1)


class _Mixing(nn.Module):
    """A fixed permutation and a learned linear map ``L U``: what an invertible 1x1 convolution is in Glow."""

    back: Tensor

    def __init__(self, features: int, order: Tensor):
        super().__init__()
        self.register_buffer("back", order.argsort())
        self.LU = nn.Parameter(torch.eye(features))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        linear = require_zuko().transforms.LULinearTransform(self.LU)
        y = x @ (linear.L @ linear.U).index_select(1, self.back).T
        return y, linear.log_abs_det_jacobian(x, y)

    def inverse(self, y: Tensor) -> Tensor:
        linear = require_zuko().transforms.LULinearTransform(self.LU)
        # zuko solves one system per row, some sixty times slower than all rows as columns of one system.
        single = torch.promote_types(y.dtype, torch.float32)  # there is no solver in half precision
        columns = y.reshape(-1, y.shape[-1]).T.to(single)
        columns = torch.linalg.solve_triangular(linear.L.to(single), columns, upper=False)
        columns = torch.linalg.solve_triangular(linear.U.to(single), columns, upper=True, unitriangular=True)
        return columns.T.index_select(1, self.back).reshape(y.shape).to(y.dtype)


def _bounded(limit: float) -> Callable[..., Transform]:
    """zuko's affine transform with a log scale that never leaves ``(-limit, limit)``."""
    return partial(
        require_zuko().transforms.MonotonicAffineTransform, slope=float(torch.exp(torch.tensor(-float(limit))))
    )


def _released_scale(shift: Tensor, scale: Tensor) -> Transform:
    return _SigmoidAffine(shift, scale)


class _SigmoidAffine(Transform):
    """``y = (x + shift) * sigmoid(raw + 2)``: every step shrinks, so that inverses of many steps blow up."""

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = +1

    def __init__(self, shift: Tensor, raw: Tensor):
        super().__init__()
        self.shift, self.raw = shift, raw + 2

    def _call(self, x: Tensor) -> Tensor:
        return (x + self.shift) * torch.sigmoid(self.raw)

    def _inverse(self, y: Tensor) -> Tensor:
        return y / torch.sigmoid(self.raw) - self.shift

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(self.raw).expand(x.shape)
