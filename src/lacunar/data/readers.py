"""Readers: from a file to the value of one modality of one sample."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lacunar.data.audio import mfcc
from lacunar.data.column_values import infer_kind, with_channel
from lacunar.data.columns import KINDS, FileColumn
from lacunar.errors import ConfigError, DataError, LacunarError, MissingExtraError, did_you_mean

__all__ = ["FileReader", "column_from_files", "get_reader", "read_wav", "reader_names", "register_reader"]


@dataclass(frozen=True)
class FileReader:
    """Reads one file and vouches for what comes back: finite float32 numbers of the right number of dimensions.

    Attributes:
        name: name of the reader in messages and descriptions.
        function: ``function(path, **options) -> array``.
        kind: kind of modality it gives, or None when the first file tells.
        options: keyword arguments of the function.
    """

    name: str
    function: Callable[..., Any]
    kind: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, path: Path) -> Tensor:
        """The value in a file; float32, or int64 for tokens.

        Raises:
            DataError: the file is missing, damaged, of another kind, or holds NaN; the message names it.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"File not found: {path}.")
        with _told_as_data_error(path, self.name):
            value = np.asarray(self.function(path, **self.options))
        if value.dtype.kind not in "fiub":
            raise DataError(f"{path}: expected numbers, got {value.dtype}.")
        if value.size == 0:
            raise DataError(f"{path}: the file holds no values (shape {value.shape}).")
        if value.ndim == 0:
            value = value[None]
        with _told_with_path(path):
            kind = self.kind or infer_kind(value.shape)
        value = with_channel(str(path), value[None], kind)[0]
        if kind == "tokens":
            if (value < 0).any() or (value != np.floor(value)).any():
                raise DataError(f"{path}: tokens are whole numbers from 0 up.")
            return torch.from_numpy(np.ascontiguousarray(value, dtype=np.int64))
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
            value = np.ascontiguousarray(value, dtype=np.float32)
        if not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            raise DataError(
                f"{path}: {bad} of {value.size} values are NaN or infinite (as 32-bit numbers) in a file of a present "
                "modality."
            )
        return torch.from_numpy(value)

    def with_kind(self, kind: str | None) -> FileReader:
        """The same reader for another kind of modality."""
        return self if kind is None else FileReader(self.name, self.function, kind, self.options)


@contextmanager
def _told_with_path(path: Path) -> Iterator[None]:
    """Puts the name of the file in front of what its content is refused for."""
    try:
        yield
    except (ConfigError, DataError) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


@contextmanager
def _told_as_data_error(path: Path, name: str) -> Iterator[None]:
    """Whatever a file format's library raises over a bad file, told with the file's name."""
    try:
        with _told_with_path(path):
            yield
    except (LacunarError, MemoryError):
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: cannot be read as {name} ({reason}). The file is damaged or of another kind."
        ) from error


def read_npy(path: Path) -> np.ndarray:
    """An array saved by ``numpy.save``. Nothing is ever unpickled."""
    with path.open("rb") as file:
        magic = file.read(6)
        if magic[:2] == b"PK":
            raise DataError(f"{path}: an npz archive of several arrays; save one array as npy.")
        if magic[:1] == b"\x80":
            raise DataError(f"{path}: would need unpickling, which can run code. Save it again with numpy.save.")
        if magic != b"\x93NUMPY":
            raise ValueError("no npy header")
        file.seek(0)
        try:
            return np.load(file, allow_pickle=False)
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise DataError(
                f"{path}: holds Python objects and would need unpickling, which can run code. "
                "Save numbers of one shape with numpy.save."
            ) from error


def read_image(path: Path, mode: str | None = None, size: Sequence[int] | None = None) -> np.ndarray:
    """An image as numbers in [0, 1], shape ``(C, H, W)``.

    Args:
        path: any format that Pillow knows: 8 bits a channel, 16-bit grey, or floating grey that is in [0, 1] already.
            Transparency is not read.
        mode: ``"grey"`` (C = 1) or ``"rgb"`` (C = 3); as the file is when left out.
        size: height and width to resize to (bilinear).
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "image", "Reading images") from error
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            if deep and mode == "rgb":
                raise ConfigError(f"{path}: a deep grey image ({image.mode}) cannot be read with mode 'rgb'.")
            grey = mode == "grey" or (mode is None and image.mode in ("1", "L", "LA"))
            picture = image.convert("F") if deep else image.convert("L" if grey else "RGB")
            if size is not None:
                height, width = size
                picture = picture.resize((int(width), int(height)), Image.Resampling.BILINEAR)
            full = (1.0 if image.mode == "F" else 65535.0) if deep else 255.0
            pixels = np.asarray(picture, dtype=np.float32) / full
            if deep and not (pixels.min() >= 0 and pixels.max() <= 1):
                raise DataError(
                    f"{path}: {image.mode} pixels from {pixels.min() * full:g} to {pixels.max() * full:g}, "
                    f"expected 0 to {full:g}. Save such measurements as npy."
                )
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _wav_samples(path: Path, rate: int | None = None) -> tuple[np.ndarray, int]:
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks of metadata that scipy does not know
        warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
        found, samples = wavfile.read(path)
    if samples.dtype == np.uint8:
        values = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        values = (samples / float(2 ** (8 * samples.dtype.itemsize - 1))).astype(np.float32)
    else:
        values = samples.astype(np.float32)
    if values.ndim == 2:
        values = values.mean(axis=1)
    if rate is not None and rate != found:
        common = int(np.gcd(int(rate), int(found)))
        values = resample_poly(values, int(rate) // common, int(found) // common).astype(np.float32)
        found = int(rate)
    return values, int(found)


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) > 0


def read_wav(path: Path, rate: int | None = None) -> np.ndarray:
    """A sound as numbers in [-1, 1], channels averaged, shape ``(T, 1)``.

    Args:
        path: a WAV file.
        rate: samples per second to resample to; as the file is when left out.
    """
    return _wav_samples(path, rate)[0][:, None]


def read_wav_mfcc(path: Path, rate: int | None = None, assumed_rate: float | None = None, **options: Any) -> np.ndarray:
    """The coefficients of :func:`lacunar.data.audio.mfcc` of a WAV file, shape ``(frames, n_mfcc)``.

    Args:
        path: a WAV file.
        rate: samples per second to resample to.
        assumed_rate: the rate that the filters are told, when it should not be the true one.
        **options: options of :func:`lacunar.data.audio.mfcc`.
    """
    values, found = _wav_samples(path, rate)
    return mfcc(values, assumed_rate or found, **options).numpy()


def read_nifti(path: Path) -> np.ndarray:
    """A volume in its stored voxel order, shape ``(1, D, H, W)``; a fourth stored axis becomes the channels."""
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("nibabel", "medical", "Reading NIfTI volumes") from error
    volume = np.asarray(nibabel.load(path).get_fdata(dtype=np.float32))  # type: ignore[attr-defined]
    if volume.ndim == 4:
        return np.moveaxis(volume, -1, 0)
    if volume.ndim != 3:
        raise ValueError(f"expected 3 or 4 axes, got shape {volume.shape}")
    return volume[None]


# What options of the readers below may be; None says to leave it to the file.
COUNTS = ("rate", "n_mfcc", "n_fft", "hop", "n_mels", "keep_every", "frames")
NUMBERS = ("assumed_rate", "f_min", "f_max", "top_db")
CHOICES = {
    "mode": ("grey", "rgb"),
    "mel": ("slaney", "htk"),
    "pad_mode": ("constant", "reflect", "replicate", "circular"),
}
MAY_BE_NONE = ("mode", "size", "rate", "frames", "assumed_rate", "f_max", "top_db")

_READERS: dict[str, FileReader] = {
    "npy": FileReader("npy", read_npy),
    "image": FileReader("image", read_image, "image"),
    "wav": FileReader("wav", read_wav, "sequence"),
    "wav-mfcc": FileReader("wav-mfcc", read_wav_mfcc, "sequence"),
    "nifti": FileReader("nifti", read_nifti, "volume"),
}


def reader_names() -> tuple[str, ...]:
    """Names of the readers there are."""
    return tuple(_READERS)


def register_reader(name: str, function: Callable[..., Any], kind: str | None = None) -> None:
    """Make a function usable by name in descriptions and :func:`lacunar.from_frame`.

    Args:
        name: the name to use; one that exists is replaced only by the same function.
        function: ``function(path, **options) -> array of numbers``; define it at the top of a module, so that
            DataLoader workers can find it.
        kind: kind of modality that it gives; told by the first file's shape when left out.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"register_reader: unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    if name in _READERS and _READERS[name].function is not function:
        raise ConfigError(f"register_reader: there is a reader {name!r} already; choose another name.")
    _READERS[name] = FileReader(name, function, kind)


def get_reader(reader: str | Callable[..., Any], **options: Any) -> FileReader:
    """A reader by name, or around a function.

    Raises:
        ConfigError: an unknown name, an option that the reader does not take, or a value that it cannot use.
    """
    if isinstance(reader, FileReader):
        found = reader
    elif isinstance(reader, str):
        if reader not in _READERS:
            raise ConfigError(f"reader: unknown reader {reader!r}.{did_you_mean(reader, _READERS)}")
        found = _READERS[reader]
    elif callable(reader):
        found = FileReader(getattr(reader, "__name__", "reader"), reader)
    else:
        raise ConfigError(f"reader: expected a name or a function, got {reader!r}.")
    known = _options_of(found)
    for option in options:
        if known is not None and option not in known:
            raise ConfigError(f"reader {found.name}: unknown option {option!r}.{did_you_mean(option, known)}")
    made = FileReader(found.name, found.function, found.kind, {**found.options, **options})
    _check_options(made)
    return made


def _check_options(reader: FileReader) -> None:
    """ConfigError for a value that a reader of lacunar's own cannot use, before a file is blamed for it."""
    if reader.function not in (read_image, read_wav, read_wav_mfcc):
        return
    for option, value in reader.options.items():
        expected = None
        if value is None and option in MAY_BE_NONE:
            continue
        if option in COUNTS and not _is_count(value):
            expected = "a whole number of at least 1"
        elif option in NUMBERS and (isinstance(value, bool) or not isinstance(value, (int, float))):
            expected = "a number"
        elif option in CHOICES and value not in CHOICES[option]:
            expected = " or ".join(map(repr, CHOICES[option]))
        elif option == "size":
            pair = isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_count, value))
            expected = None if pair else "[height, width] in whole numbers"
        if expected is not None:
            raise ConfigError(f"reader {reader.name}: {option}: expected {expected}, got {value!r}.")
    if reader.function is read_wav_mfcc:
        default = {name: parameter.default for name, parameter in inspect.signature(mfcc).parameters.items()}
        kept, filters = (reader.options.get(option, default[option]) for option in ("n_mfcc", "n_mels"))
        if kept > filters:
            raise ConfigError(
                f"reader {reader.name}: {kept} coefficients need at least as many mel filters, got n_mels={filters}."
            )


def _options_of(reader: FileReader) -> list[str] | None:
    """Names of the options of a reader; None when it takes any."""
    function = reader.function.func if isinstance(reader.function, partial) else reader.function
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    names = [parameter.name for parameter in parameters[1:] if parameter.kind is not parameter.VAR_KEYWORD]
    if function is read_wav_mfcc:
        return names + [name for name in inspect.signature(mfcc).parameters if name not in ("signal", "rate")]
    return None if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters) else names


def column_from_files(
    name: str,
    paths: Sequence[Path | None],
    reader: FileReader | str | Callable[..., Any],
    kind: str | None = None,
    shape: Sequence[int] | None = None,
) -> FileColumn:
    """A modality whose values are read from files when a batch needs them.

    Args:
        name: the modality.
        paths: one path per sample, None where the modality is absent.
        reader: how to read them, see :func:`get_reader`.
        kind: kind of modality, where the reader's own or the first file's shape should not decide.
        shape: shape that every file must have (sequences without their steps); the first file's when left out.

    Raises:
        DataError: paths that do not exist, or a first file that cannot be read.
    """
    if kind is not None and kind not in KINDS:
        raise DataError(f"Modality {name!r}: unknown kind {kind!r}.{did_you_mean(kind, KINDS)}")
    given = [None if path is None else Path(path) for path in paths]
    lost = [path for path in given if path is not None and not path.is_file()]
    if lost:
        listing = ", ".join(map(str, lost[:3]))
        raise DataError(
            f"Modality {name!r}: {len(lost)} of {sum(path is not None for path in given)} files do not exist, the "
            f"first are {listing}. Leave the cell empty where the modality is absent; paths are relative to the "
            "folder of the description, or to root=."
        )
    read = get_reader(reader).with_kind(kind)
    first = next((path for path in given if path is not None), None)
    if read.kind is None:
        if first is None:
            raise DataError(f"Modality {name!r}: no file to tell its kind by. Give kind=.")
        with _told_as_data_error(first, read.name):
            read = read.with_kind(infer_kind(np.shape(read.function(first, **read.options))))
    position = torch.tensor([row if path is not None else -1 for row, path in enumerate(given)], dtype=torch.int64)
    column = FileColumn(name, str(read.kind), position, given, read)
    found = column.shape  # the first file is read now, so that a wrong reader is found before training
    if shape is not None:
        if first is not None and found != tuple(shape):
            raise DataError(f"Modality {name!r}: expected shape {tuple(shape)}, got {found} in {first}.")
        column = FileColumn(name, str(read.kind), position, given, read, tuple(shape))
    return column
