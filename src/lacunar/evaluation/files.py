"""A subset table as a file: plain JSON, with the scores of the samples packed."""

from __future__ import annotations

import base64
import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lacunar.errors import RunError
from lacunar.evaluation.table import SubsetTable
from lacunar.lattice import Lattice

__all__ = ["load_table", "save_table"]

FORMAT = 1


def save_table(table: SubsetTable, path: Path) -> None:
    """Write a table; the file appears whole or not at all.

    ``subsets`` holds the numbers that a reader looks for; ``scores`` holds those of every sample, float32, row by
    row, compressed with zlib and written in base64.
    """
    document = {
        "format": FORMAT,
        "what": "lacunar subset table",
        "score": table.score_name,
        "kind": table.kind,
        "mean": table.mean,
        "worst": {"subset": table.worst.subset, "score": table.worst.score},
        "full": table.full,
        "baseline": table.baseline,
        "confidence": table.confidence,
        "resamples": table.resamples,
        "seed": table.seed,
        "notes": table.notes,
        "modalities": list(table.names),
        "subsets": [{"subset": label, **row} for label, row in zip(table.labels, table.frame.to_dict("records"))],
        "codes": table.codes,
        "metrics": list(table.metrics.columns),
        "ids": [str(sample) for sample in table.ids],
        "groups": None if table.groups is None else [str(group) for group in table.groups],
        "scores": _pack(table.scores),
        "expert_scores": None if table.expert_scores is None else _pack(table.expert_scores),
        "generated": None if table.generated is None else _pack(table.generated),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(_plain(document), file, allow_nan=False)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_table(path: Path) -> SubsetTable:
    """Read a table.

    Raises:
        RunError: the file does not exist, is no table, or was written by a later version.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: no subset table can be read here ({error}).") from error
    if not isinstance(document, dict) or document.get("what") != "lacunar subset table":
        raise RunError(f"{path}: expected a subset table, got another JSON file.")
    if document["format"] > FORMAT:
        raise RunError(f"{path}: written by a later version of lacunar (format {document['format']} > {FORMAT}).")
    try:
        lattice, codes, ids = Lattice(document["modalities"]), document["codes"], document["ids"]
        metrics = pd.DataFrame(document["subsets"])[document["metrics"]].astype(float)
        experts, generated = document["expert_scores"], document.get("generated")
        table = SubsetTable(
            lattice, codes, _unpack(document["scores"], (len(ids), len(codes))), metrics, np.asarray(ids, dtype=object),
            score_name=document["score"], kind=document["kind"], confidence=document["confidence"],
            resamples=document["resamples"], seed=document["seed"],
            groups=None if document["groups"] is None else np.asarray(document["groups"]),
            expert_scores=None if experts is None else _unpack(experts, (len(ids), lattice.M)),
            generated=None if generated is None else _unpack(generated, (len(ids), lattice.M)) > 0,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise RunError(f"{path}: the subset table is damaged ({error!r}).") from error
    table.notes = document["notes"]
    return table


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, dtype="<f4").tobytes())).decode("ascii")


def _unpack(text: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f4").reshape(shape).astype(np.float32)


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's, and what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
