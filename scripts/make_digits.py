"""Make the embedded data set ``digits``: 1,797 digits, each seen, heard and read.

    python scripts/make_digits.py src/lacunar/datasets/files/digits.npz

* seen: scikit-learn's 8x8 handwritten digits (a copy of UCI's optical recognition test set), shifted, blurred,
  partly covered and noisy.
* heard: the English number word spoken by eSpeak NG in many accents, voices, speeds and pitches, cut to a window of
  0.6 s and mixed with noise; kept as 24 frames of 13 mel-frequency cepstral coefficients in one byte each.
* read: the number word in thirteen languages, with typing errors.

Every sample has a random stream of its own, seeded by its position, so that one sample can be made again alone.
Needs eSpeak NG on the path (the committed file was made with 1.51) for the speech, and nothing else but lacunar's own
dependencies. How hard each modality is, is set by the three constants below.
"""

from __future__ import annotations

import argparse
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.fft import dct
from scipy.ndimage import gaussian_filter, shift
from sklearn.datasets import load_digits

PIXEL_NOISE = 2.2  # standard deviation of the noise on images whose ink goes from 0 to 16
SIGNAL_TO_NOISE = (-8.0, 4.0)  # decibel, uniform over the samples
TYPO_RATE = 0.54  # chance that a letter is dropped, replaced, doubled or swapped with the next

RATE = 16_000  # samples per second
FRAMES, COEFFICIENTS, HOP, WINDOW = 24, 13, 400, 640

NUMBERS = {
    "da": "nul en to tre fire fem seks syv otte ni",
    "de": "null eins zwei drei vier fünf sechs sieben acht neun",
    "en": "zero one two three four five six seven eight nine",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "fi": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
    "fr": "zéro un deux trois quatre cinq six sept huit neuf",
    "id": "nol satu dua tiga empat lima enam tujuh delapan sembilan",
    "it": "zero uno due tre quattro cinque sei sette otto nove",
    "nl": "nul een twee drie vier vijf zes zeven acht negen",
    "pl": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
    "pt": "zero um dois três quatro cinco seis sete oito nove",
    "sv": "noll ett två tre fyra fem sex sju åtta nio",
    "tr": "sıfır bir iki üç dört beş altı yedi sekiz dokuz",  # noqa: RUF001
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
VOICES = tuple(f"m{i}" for i in range(1, 9)) + tuple(f"f{i}" for i in range(1, 6)) + (
    "klatt", "klatt2", "klatt3", "klatt4", "croak", "whisper", "whisperf",
    "Alex", "Andrea", "Annie", "Denis", "Diogo", "Gene", "Hugo", "Jacky", "Lee", "Linda", "Mario", "Michael", "Pablo",
    "Steph", "Storm", "Tweaky", "Zac", "adam", "anika", "belinda", "boris", "david", "edward", "paul", "quincy", "rob",
)  # fmt: skip


def stream(part: int, sample: int) -> np.random.Generator:
    """The random numbers of one modality (0, 1, 2) of one sample."""
    return np.random.default_rng([20_240_501, part, sample])


def make_seen(image: np.ndarray, sample: int) -> np.ndarray:
    """A worse copy of one 8x8 image, uint8."""
    rng = stream(0, sample)
    picture = shift(image.astype(float), rng.uniform(-0.4, 0.4, 2), order=1)
    picture = gaussian_filter(picture, rng.uniform(0.2, 0.8))
    top, left = rng.integers(0, 7, 2)
    picture[top : top + 2, left : left + 2] = 0
    picture = picture * rng.uniform(0.7, 1.0) + rng.normal(0, PIXEL_NOISE, picture.shape)
    return np.clip(np.round(picture * 255 / 16), 0, 255).astype(np.uint8)


def make_read(digit: int, sample: int) -> tuple[str, str]:
    """One number word with typing errors, and its language."""
    rng = stream(2, sample)
    language = sorted(NUMBERS)[rng.integers(len(NUMBERS))]
    word = list(NUMBERS[language].split()[digit])
    typed: list[str] = []
    position = 0
    while position < len(word):
        letter = word[position]
        error = rng.integers(4) if rng.random() < TYPO_RATE else -1
        if error == 0 and len(word) > 2:  # dropped
            letter = ""
        elif error == 1:  # replaced
            letter = LETTERS[rng.integers(26)]
        elif error == 2:  # one too many
            letter += LETTERS[rng.integers(26)]
        elif error == 3 and position + 1 < len(word):  # swapped
            letter = word[position + 1] + letter
            position += 1
        typed.append(letter)
        position += 1
    return "".join(typed) or LETTERS[rng.integers(26)], language


def speak(word: str, accent: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """eSpeak NG's waveform of a word at 16 kHz, cut to where there is sound."""
    command = ["espeak-ng", "--stdout", "-v", f"{accent}+{voice}", "-s", str(speed), "-p", str(pitch), word]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    wave = np.frombuffer(raw[44:], dtype="<i2").astype(float) / 32768
    own_rate = int.from_bytes(raw[24:28], "little")
    seconds = np.arange(int(len(wave) * RATE / own_rate)) / RATE
    wave = np.interp(seconds, np.arange(len(wave)) / own_rate, wave)
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def mel_filters(bands: int = 26, size: int = 1024, low: float = 100.0, high: float = 7000.0) -> np.ndarray:
    """Triangular filters on the mel scale, shape ``(bands, size // 2 + 1)``."""
    first, last = 2595 * np.log10(1 + np.array([low, high]) / 700)
    edges = np.linspace(first, last, bands + 2)
    edges = 700 * (10 ** (edges / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / RATE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None)


def cepstrum(wave: np.ndarray) -> np.ndarray:
    """Mel-frequency cepstral coefficients of 0.6 s of sound, shape ``(24, 13)``."""
    starts = np.arange(FRAMES) * HOP
    frames = np.pad(wave, (0, WINDOW))[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    return dct(np.log(power @ mel_filters().T + 1e-6), norm="ortho")[:, :COEFFICIENTS]


def make_heard(digit: int, sample: int) -> tuple[np.ndarray, str]:
    """The coefficients of one spoken digit, shape ``(24, 13)``, and the accent it is spoken in."""
    rng = stream(1, sample)
    accent, voice = ACCENTS[rng.integers(len(ACCENTS))], VOICES[rng.integers(len(VOICES))]
    word = NUMBERS["en"].split()[digit]
    wave = speak(word, accent, voice, int(rng.integers(130, 240)), int(rng.integers(15, 90)))
    length = FRAMES * HOP
    sound = np.zeros(length)
    start = int(rng.integers(0, RATE // 10))
    spoken = wave[: length - start]
    sound[start : start + len(spoken)] = spoken
    noise = rng.normal(size=length)
    if rng.random() < 0.5:  # half of the rooms rumble: noise with more power at low frequencies
        noise = np.convolve(noise, np.ones(8) / 8, mode="same")
    level = np.sqrt((spoken**2).mean() / (noise**2).mean() / 10 ** (rng.uniform(*SIGNAL_TO_NOISE) / 10))
    mixed = sound + level * noise
    return cepstrum(mixed / np.abs(mixed).max()), accent


def make() -> dict[str, np.ndarray]:
    """All arrays of the committed file."""
    source = load_digits()
    with ThreadPoolExecutor() as pool:
        heard = list(pool.map(make_heard, source.target.tolist(), range(len(source.target))))
    sounds = np.stack([sound for sound, _ in heard])
    scale = np.abs(sounds).max(axis=(0, 1)) / 127
    words, languages = zip(*(make_read(digit, i) for i, digit in enumerate(source.target.tolist())))
    rows = {
        "digit": source.target.astype(np.uint8),
        "seen": np.stack([make_seen(image, i) for i, image in enumerate(source.images)]),
        "heard": np.round(sounds / scale).astype(np.int8),
        "read": np.array(words),
        "language": np.array(languages),
        "accent": np.array([accent for _, accent in heard]),
    }
    # The source counts from 0 to 9 again and again: in this order a position would tell the digit.
    order = stream(3, 0).permutation(len(source.target))
    shuffled = {name: values[order] for name, values in rows.items()}
    return {"source": order.astype(np.uint16), "heard_scale": scale.astype(np.float32), **shuffled}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    arrays = make()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    print(f"{file}: {len(arrays['digit'])} samples, {file.stat().st_size / 1024:.0f} KiB")
