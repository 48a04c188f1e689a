"""Tables of any width as few uncorrelated numbers of unit variance, and back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Whitening", "align"]


class Whitening(nn.Module):
    """Principal components, scaled to unit variance.

    Args:
        size: columns d of the table.
        width: numbers k that it is turned into. Those beyond the rank of the training data are always 0.
    """

    center: Tensor
    forth: Tensor
    back: Tensor
    padding: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.size, self.width = size, width
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("forth", torch.zeros(size, width))
        self.register_buffer("back", torch.zeros(width, size))
        self.register_buffer("padding", torch.eye(width))  # projects on the directions that are always 0

    def fit(self, rows: Tensor, floor: float = 1e-4) -> Whitening:
        """Learn from observed rows ``(n, d)``; directions with less than ``floor`` of the largest variance are cut."""
        exact = rows.double().cpu()
        center = exact.mean(0)
        components, variance = _principal(exact - center, min(self.width, *rows.shape))
        useful = variance > floor * variance.max().clamp_min(1e-12)
        components, scale = components[useful], variance[useful].sqrt()
        k = len(scale)
        self.center.copy_(center)
        self.forth.zero_()
        self.back.zero_()
        self.forth[:, :k] = (components / scale[:, None]).T.to(self.forth)
        self.back[:k] = (components * scale[:, None]).to(self.back)
        self.padding.copy_(torch.diag((torch.arange(self.width) >= k).to(self.padding)))
        return self

    def rotate(self, rotation: Tensor) -> None:
        """Turn the codes by an orthogonal matrix ``(k, k)``; they stay uncorrelated, of unit variance."""
        rotation = rotation.to(self.forth)
        self.forth.copy_(self.forth @ rotation)
        self.back.copy_(rotation.T @ self.back)
        self.padding.copy_(rotation.T @ self.padding @ rotation)

    def encode(self, table: Tensor) -> Tensor:
        """``(n, k)`` from ``(n, d)``."""
        return (table - self.center) @ self.forth

    def decode(self, codes: Tensor) -> Tensor:
        """``(n, d)`` from ``(n, k)``: the part of the table that k numbers can tell."""
        return codes @ self.back + self.center


def align(codes: Tensor, present: Tensor, sweeps: int = 5) -> list[Tensor]:
    """Rotations after which the codes of one row resemble each other across modalities, as far as they can.

    Each modality in turn is rotated towards the mean of what else its rows have (orthogonal Procrustes).

    Args:
        codes: ``(N, M, k)``, zeros where absent.
        present: boolean, shape ``(N, M)``.
        sweeps: how many times all modalities take their turn.

    Returns:
        For each modality an orthogonal matrix ``(k, k)``.
    """
    M, k = codes.shape[1:]
    turned = codes.double()
    total = [torch.eye(k, dtype=torch.float64, device=codes.device) for _ in range(M)]
    for _ in range(sweeps):
        for m in range(M):
            others = present.clone()
            others[:, m] = False
            weight = others.double() / others.sum(1, keepdim=True).clamp_min(1)
            goal = torch.einsum("nmk,nm->nk", turned, weight)
            rows = present[:, m] & others.any(1)
            if not bool(rows.any()):
                continue
            left, _, right = torch.linalg.svd(turned[rows, m].T @ goal[rows])
            turned[:, m] = turned[:, m] @ (left @ right)
            total[m] = total[m] @ left @ right
    return [rotation.float() for rotation in total]


def _principal(centred: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k leading directions ``(k, d)`` and their variances, largest first, with a fixed sign."""
    from sklearn.decomposition import PCA

    if len(centred) < 2:
        return torch.eye(centred.shape[1], dtype=centred.dtype)[:k], torch.zeros(k, dtype=centred.dtype)
    fitted = PCA(k, random_state=0).fit(np.asarray(centred))
    return torch.from_numpy(fitted.components_.copy()), torch.from_numpy(fitted.explained_variance_.copy())
