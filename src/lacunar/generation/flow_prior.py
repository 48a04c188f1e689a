"""The latent distribution that all modalities share: one Gaussian per class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lacunar.errors import DataError
from lacunar.models.configurable import Configurable

__all__ = ["ClassPrior", "class_bins"]


class ClassPrior(Configurable):
    """``N(mu_c, diag(sd_c^2))`` for every class c, shared across modalities, constant over time.

    Sharing it is all that aligns the latents of different modalities. A class that never occurs keeps the standard
    normal it started as.

    Args:
        features: channels C.
        classes: number of classes K.
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(classes, features))
        self.log_sd = nn.Parameter(torch.zeros(classes, features))
        self.classes = classes

    def log_prob(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """Log density summed over channels and time.

        Args:
            z: latents ``(n, C)`` or ``(n, C, T)``.
            classes: class of each row, int64 ``(n,)``, -1 where it is not known, or one-hot rows ``(n, K)``.
                A row without a class is scored by the mixture of all classes, evenly weighted.

        Returns:
            ``(n,)``.

        Raises:
            DataError: a class that is not below K, or one-hot rows of another width.
        """
        if classes is None:
            classes = torch.full((len(z),), -1, device=z.device)
        if classes.ndim == 2:
            if classes.shape[1] != self.classes:
                raise DataError(f"Expected one-hot rows for {self.classes} classes, got width {classes.shape[1]}.")
            return self._gaussian(z, classes.to(z.dtype))
        if len(classes) and int(classes.max()) >= self.classes:
            raise DataError(f"Expected classes below {self.classes}, got {int(classes.max())}.")
        one_hot = nn.functional.one_hot(classes.clamp_min(0), self.classes).to(z.dtype)
        known = self._gaussian(z, one_hot)
        unknown = classes < 0
        if not bool(unknown.any()):
            return known
        every = torch.eye(self.classes, dtype=z.dtype, device=z.device)
        parts = torch.stack([self._gaussian(z[unknown], row.expand(int(unknown.sum()), -1)) for row in every])
        mixture = torch.logsumexp(parts, dim=0) - math.log(self.classes)
        return known.masked_scatter(unknown, mixture)

    def centre(self, z: Tensor) -> Tensor:
        """The mean of the class means, of the shape of one row of ``z``."""
        centre = self.mean.mean(0)
        return centre[:, None].expand(z.shape[1:]) if z.ndim == 3 else centre

    def _gaussian(self, z: Tensor, one_hot: Tensor) -> Tensor:
        mean, log_sd = one_hot @ self.mean, one_hot @ self.log_sd
        if z.ndim == 3:
            mean, log_sd = mean[..., None], log_sd[..., None]
        density = -0.5 * ((z - mean) * torch.exp(-log_sd)) ** 2 - log_sd - 0.5 * math.log(2 * math.pi)
        return density.flatten(1).sum(1)


def class_bins(target: Tensor | None, n: int, bins: int = 5) -> tuple[Tensor, int]:
    """Classes for the prior, from any kind of target.

    Args:
        target: ``(N,)`` class indices (integers) or numbers (floats), ``(N, L)`` several of either, or None.
        n: number of samples.
        bins: quantile bins of numbers; of several columns, of their first principal component.

    Returns:
        Class of each sample, int64 ``(n,)`` (-1 where the target is not known), and the number of classes K >= 1.
    """
    if target is None or target.ndim > 2 or len(target) == 0:
        return torch.zeros(n, dtype=torch.int64), 1
    values = target.detach().cpu()
    if values.ndim == 2:
        known = torch.isfinite(values.to(torch.float64)).all(1)
        columns = values.to(torch.float64)
        centred = columns[known] - columns[known].mean(0)
        if len(centred) < 2:
            return torch.zeros(n, dtype=torch.int64), 1
        axis = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        projected = torch.full((n,), torch.nan, dtype=torch.float64)
        projected[known] = centred @ (axis * torch.sign(axis[axis.abs().argmax()]))
        values = projected
    if not values.is_floating_point():
        return values.to(torch.int64).clamp_min(-1), max(int(values.max()) + 1, 1)
    known = torch.isfinite(values)
    classes = torch.full((n,), -1, dtype=torch.int64)
    if known.any():
        inner = torch.linspace(0, 1, max(bins, 1) + 1, dtype=torch.float64)[1:-1]
        cuts = torch.quantile(values[known].to(torch.float64), inner).unique() if len(inner) else inner
        classes[known] = torch.bucketize(values[known].to(torch.float64), cuts, right=True)
    # Ties make bins empty; numbering them without gaps keeps every class in use.
    used, numbered = classes[known].unique(return_inverse=True)
    classes[known] = numbered
    return classes, max(len(used), 1)
