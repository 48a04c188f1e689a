"""Mel-frequency cepstral coefficients."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from scipy.fft import dct
from torch import Tensor

from lacunar.errors import ConfigError, DataError

__all__ = ["mel_filters", "mfcc"]


def mfcc(
    signal: Tensor | np.ndarray,
    rate: float,
    n_mfcc: int = 20,
    *,
    n_fft: int = 2048,
    hop: int = 512,
    n_mels: int = 128,
    f_min: float = 0.0,
    f_max: float | None = None,
    mel: str = "slaney",
    top_db: float | None = 80.0,
    pad_mode: str = "constant",
    keep_every: int = 1,
    frames: int | None = None,
) -> Tensor:
    """Mel-frequency cepstral coefficients of a sound.

    Power spectra of Hann windows, centred every ``hop`` samples, are summed by triangular mel filters of unit area,
    taken to decibels, and transformed by an orthonormal DCT-II of which the first coefficients are kept.

    Args:
        signal: samples, shape ``(T,)`` or ``(T, 1)``.
        rate: samples per second, as the filters should believe it.
        n_mfcc: coefficients to keep.
        n_fft: window length in samples.
        hop: samples from one frame to the next.
        n_mels: mel filters.
        f_min: lowest frequency in Hz.
        f_max: highest frequency in Hz; half the rate when left out.
        mel: ``"slaney"`` (linear below 1 kHz) or ``"htk"``.
        top_db: how far below the loudest cell a cell may fall, in decibels; None for no floor.
        pad_mode: how the ends are continued, see :func:`torch.stft`.
        keep_every: keep every n-th sample first, without a filter and without changing ``rate``. Some published
            protocols thin their recordings so.
        frames: cut or pad with zeros to this many frames.

    Returns:
        float32, shape ``(frames, n_mfcc)``.

    Raises:
        DataError: an empty signal or several channels.
        ConfigError: more coefficients than filters.
    """
    samples = torch.as_tensor(np.asarray(signal, dtype=np.float32))
    if samples.ndim == 2 and samples.shape[1] == 1:
        samples = samples[:, 0]
    if samples.ndim != 1 or not len(samples):
        raise DataError(f"mfcc: expected a sound of shape (T,) with T > 0, got {tuple(samples.shape)}.")
    if n_mfcc > n_mels:
        raise ConfigError(f"mfcc: {n_mfcc} coefficients need at least as many mel filters, got n_mels={n_mels}.")
    spectrum = torch.stft(
        samples[::keep_every],
        n_fft,
        hop,
        window=torch.hann_window(n_fft),
        center=True,
        pad_mode=pad_mode,
        return_complex=True,
    )
    power = spectrum.abs().square()
    energy = mel_filters(rate, n_fft, n_mels, f_min, f_max, mel) @ power
    decibels = 10 * energy.clamp_min(1e-10).log10()
    if top_db is not None:
        decibels = decibels.clamp_min(float(decibels.max()) - top_db)
    coefficients = dct(decibels.numpy(), type=2, axis=0, norm="ortho")[:n_mfcc].T
    found = torch.from_numpy(np.ascontiguousarray(coefficients, dtype=np.float32))
    if frames is not None:
        found = found[:frames]
        found = torch.cat([found, found.new_zeros(frames - len(found), n_mfcc)])
    return found


@functools.lru_cache(maxsize=16)  # every clip of a data set asks for the same ones
def mel_filters(
    rate: float, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None, mel: str = "slaney"
) -> Tensor:
    """Triangular filters, evenly spaced in mel, of equal area, float32, shape ``(n_mels, n_fft // 2 + 1)``."""
    if mel not in ("slaney", "htk"):
        raise ConfigError(f"mel: expected 'slaney' or 'htk', got {mel!r}.")
    highest = rate / 2 if f_max is None else f_max
    if not 0 <= f_min < highest <= rate / 2:
        raise ConfigError(f"mfcc: expected 0 <= f_min < f_max <= {rate / 2:g} Hz, got {f_min:g} and {highest:g}.")
    to_mel, to_hertz = (_slaney, _slaney_inverse) if mel == "slaney" else (_htk, _htk_inverse)
    edges = to_hertz(np.linspace(to_mel(np.array(f_min)), to_mel(np.array(highest)), n_mels + 2))
    frequencies = np.linspace(0, rate / 2, n_fft // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(weights.astype(np.float32))


# Slaney's scale: 3 mel per 200 Hz up to 1 kHz (mel 15), then 27 mel for each factor of 6.4.
def _slaney(hertz: np.ndarray) -> np.ndarray:
    above = 15 + np.log(np.maximum(hertz, 1e-9) / 1000) * 27 / math.log(6.4)
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def _slaney_inverse(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * math.log(6.4) / 27))


def _htk(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)


def _htk_inverse(mels: np.ndarray) -> np.ndarray:
    return 700 * (10 ** (mels / 2595) - 1)
