"""Brain tumours in MR images: blocks of three cases, for smoke tests of dense outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lacunar.data.arrays import from_arrays
from lacunar.data.dataset import MultimodalDataset
from lacunar.data.readers import get_reader
from lacunar.data.splits import Splits
from lacunar.datasets._card import with_card
from lacunar.datasets._folders import find_folder
from lacunar.errors import ConfigError, DataError
from lacunar.tasks import Segmentation

__all__ = ["REGIONS", "brats"]

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
"""Whole tumour, tumour core and enhancing tumour, as sets of the labels that :func:`brats` gives."""

DEAL = ("train", "val", "train", "test", "train")


@dataclass(frozen=True)
class Case:
    """Files of one patient, relative to the folder."""

    folder: str
    sequences: Mapping[str, str]
    labels: str
    brain: str | None = None


EXPERT = {
    "flair": "Flair_subtrMeanDivStd.nii.gz",
    "t1c": "T1c_subtrMeanDivStd.nii.gz",
}
CASES = {
    2: [Case(f"brats_2013_pat{n}_1", EXPERT, "OTMultiClass.nii.gz", "brainmask.nii.gz") for n in ("0005", "0006")],
    4: [
        Case(
            "TCGA-FG-6692",
            {"t1": "t1.nii.gz", "t1c": "t1c.nii.gz", "flair": "fla.nii.gz", "t2": "t2.nii.gz"},
            "seg_auto_fusion.nii.gz",
        )
    ],
}


def brats(
    folder: str | Path | None = None,
    sequences: int = 2,
    block: int | None = 32,
    strict: bool = False,
    whole: bool = False,
) -> Splits | MultimodalDataset:
    """Blocks of MR volumes with a label for every voxel.

    ``sequences=2``: ``flair`` and ``t1c`` of two cases labelled by experts. ``sequences=4``: ``t1``, ``t1c``,
    ``flair`` and ``t2`` of one case whose labels are the output of a program. Every case is cropped to the brain and
    every sequence standardised over the brain; voxels outside are 0.

    Labels become 0 background, 1 necrotic or non-enhancing core, 2 oedema, 3 enhancing tumour: in the files
    enhancing is 4 and becomes 3, after the non-enhancing core, which only the labels of 2013 keep apart as 3, has
    joined 1. ``REGIONS`` holds for the new labels.

    Args:
        folder: where the case folders lie; see :func:`lacunar.datasets.load`. Needs the extra ``medical``.
        sequences: 2 or 4.
        block: edge of the cubes in voxels. Cubes do not overlap; those without brain are left out.
        strict: standardise every sequence over its own foreground alone. Otherwise the brain is where any sequence
            (or the brain mask of the case) has signal, which tells a little of sequences that may be hidden later.
        whole: give the whole cropped volumes, one sample a case, for sliding-window prediction, instead of blocks.

    Returns:
        Blocks as splits: those of each case are dealt out 3 : 1 : 1, those with most of the tumour first, so that
        every part has some; blocks share no voxel but may touch. With ``whole`` a data set.

    Raises:
        ConfigError: other numbers than these.
        DataError: files missing or damaged, or volumes of a case with different shapes.
        MissingExtraError: nibabel is not installed.
    """
    if sequences not in CASES:
        raise ConfigError(f"brats: expected sequences=2 or sequences=4, got {sequences!r}.")
    if not whole and (block is None or block < 1):
        raise ConfigError(f"brats: expected a block of at least 1 voxel, got {block!r}; whole=True gives volumes.")
    cases = CASES[sequences]
    files = [f"{case.folder}/{name}" for case in cases for name in _files(case)]
    place = find_folder("brats", folder, files)
    names = tuple(cases[0].sequences)
    volumes, labels = zip(*(_read_case(place, case, strict) for case in cases))
    task = Segmentation(4, regions=REGIONS)
    result: Splits | MultimodalDataset
    if whole:
        shape = np.max([maps.shape for maps in labels], axis=0)
        scans = np.stack([_padded(volume, shape) for volume in volumes])
        result = from_arrays(
            {name: scans[:, m][:, None] for m, name in enumerate(names)},
            np.stack([_padded(maps, shape) for maps in labels]),
            ids=[case.folder for case in cases],
            task=task,
            kinds=dict.fromkeys(names, "volume"),
            name="brats",
        )
    else:
        assert block is not None
        result = _blocks(cases, names, volumes, labels, block, task)
    automatic = "the labels are the output of a program: agreement with them is not accuracy"
    with_card(
        result,
        title=f"Brain tumours, {sequences} MR sequences",
        source="BRATS 2013 (Menze et al. 2015), expert labels" if sequences == 2 else "TCGA-LGG case TCGA-FG-6692",
        licence="CC BY-NC-SA 3.0" if sequences == 2 else "as the repository it came with, Apache-2.0",
        cautions=(
            f"{len(cases)} patient{'s' * (len(cases) > 1)}: a smoke test, no claim about accuracy can rest on it",
            "blocks of every patient are in every part and touch each other: test scores are optimistic"
            if not whole
            else "whole volumes hold the blocks of every part",
            *([automatic] if sequences == 4 else []),
        ),
    )
    return result


def _files(case: Case) -> list[str]:
    return [*case.sequences.values(), case.labels, *([case.brain] if case.brain else [])]


def _read_case(place: Path, case: Case, strict: bool) -> tuple[np.ndarray, np.ndarray]:
    """Standardised sequences (M, D, H, W) and labels (D, H, W), cropped to the brain; D goes from neck to crown."""
    raw = {name: _read_volume(place / case.folder / name) for name in _files(case)}
    shapes = {name: volume.shape for name, volume in raw.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"brats, case {case.folder}: expected volumes of one shape, got {shapes}.")
    volumes = [raw[file] for file in case.sequences.values()]
    # Scanners and earlier standardisation leave a constant outside the head; the corner shows it.
    foreground = [volume != volume[0, 0, 0] for volume in volumes]
    brain = raw[case.brain] > 0.5 if case.brain else np.logical_or.reduce(foreground)
    box = _box(brain)
    standard = np.zeros((len(volumes), *brain[box].shape), dtype=np.float32)
    for m, volume in enumerate(volumes):
        inside = (foreground[m] & brain if strict else brain)[box]
        values = volume[box][inside]
        standard[m][inside] = (values - values.mean(dtype=np.float64)) / max(float(values.std(dtype=np.float64)), 1e-8)
    maps = np.rint(raw[case.labels][box]).astype(np.int64)
    maps[maps == 3] = 1
    maps[maps == 4] = 3
    return standard, maps


def _box(inside: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds every True."""
    sides = []
    for axis in range(inside.ndim):
        used = np.flatnonzero(inside.any(axis=tuple(other for other in range(inside.ndim) if other != axis)))
        sides.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(sides)


def _read_volume(path: Path) -> np.ndarray:
    """A NIfTI volume as float32 with the axis from neck to crown first."""
    volume = get_reader("nifti")(path).numpy()
    if len(volume) != 1:
        raise DataError(f"{path}: expected a volume of three dimensions, got shape {volume.shape}.")
    return np.moveaxis(volume[0], 2, 0)


def _padded(volume: np.ndarray, shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """Zeros behind the end of the last three dimensions, up to ``shape``."""
    last = [(0, int(full) - size) for full, size in zip(shape, volume.shape[-3:])]
    return np.pad(volume, [(0, 0)] * (volume.ndim - 3) + last)


def _blocks(
    cases: Sequence[Case],
    names: Sequence[str],
    volumes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    edge: int,
    task: Any,
) -> Splits:
    """Cubes of every case, dealt out to the parts."""
    cubes: list[np.ndarray] = []
    maps: list[np.ndarray] = []
    ids: list[str] = []
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for case, volume, truth in zip(cases, volumes, labels):
        grid = [math.ceil(size / edge) for size in truth.shape]
        full = [count * edge for count in grid]
        scan, label = _padded(volume, full), _padded(truth, full)
        for d, h, w in np.ndindex(*grid):
            box = tuple(slice(edge * i, edge * (i + 1)) for i in (d, h, w))
            cube = scan[(slice(None), *box)]
            if not cube.any():
                continue
            cubes.append(cube)
            maps.append(label[box])
            ids.append(f"{case.folder}:{d}-{h}-{w}")
    tumour = [(int(np.isin(block, REGIONS["TC"]).sum()), int((block > 0).sum())) for block in maps]
    for case in cases:
        own = [row for row, key in enumerate(ids) if key.startswith(f"{case.folder}:")]
        # Dealt out like cards, those with most of the tumour's core first, so that every part has its share of it.
        for turn, row in enumerate(sorted(own, key=lambda row: tumour[row], reverse=True)):
            parts[DEAL[turn % len(DEAL)]].append(row)
    values = np.stack(cubes)
    data = from_arrays(
        {name: values[:, m][:, None] for m, name in enumerate(names)},
        np.stack(maps),
        ids=ids,
        subgroups={"case": [key.split(":")[0] for key in ids]},
        task=task,
        kinds=dict.fromkeys(names, "volume"),
        name="brats",
    )
    return data.split(indices={name: sorted(rows) for name, rows in parts.items()})
