"""Mel-frequency cepstral coefficients with the conventions of librosa, without librosa."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
from scipy.signal import get_window

__all__ = ["mfcc"]


def mfcc(
    wave: np.ndarray, rate: int, coefficients: int = 20, size: int = 2048, hop: int = 512, bands: int = 128
) -> np.ndarray:
    """Mel-frequency cepstral coefficients of a sound.

    Frames are centred and the sound is padded with zeros; Slaney's mel scale with filters of equal area; decibel
    limited to 80 below the loudest; an orthonormal cosine transform. These are the defaults of ``librosa.feature.mfcc``
    from version 0.10 on.

    Args:
        wave: samples, shape ``(T,)``.
        rate: samples per second.
        coefficients: how many are kept.
        size: samples in a frame.
        hop: samples from one frame to the next.
        bands: number of mel filters.

    Returns:
        Shape ``(coefficients, 1 + T // hop)``.
    """
    padded = np.pad(np.asarray(wave, dtype=np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * get_window("hann", size))) ** 2
    energy = np.maximum(power @ _mel_filters(rate, size, bands).T, 1e-10)
    decibel = 10 * np.log10(energy)
    decibel = np.maximum(decibel, decibel.max() - 80)
    return dct(decibel, axis=1, norm="ortho")[:, :coefficients].T


def _mel_filters(rate: int, size: int, bands: int) -> np.ndarray:
    """Triangular filters, shape ``(bands, size // 2 + 1)``."""
    edges = _mel_to_hertz(np.linspace(0, _hertz_to_mel(rate / 2), bands + 2))
    bins = np.fft.rfftfreq(size, 1 / rate)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    area = 2 / (edges[2:] - edges[:-2])
    return np.clip(np.minimum(rising, falling), 0, None) * area[:, None]


# Slaney's scale: linear up to 1000 Hz (3 mel per 200 Hz), from there 27 mel for every factor of 6.4.
def _hertz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def _mel_to_hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
