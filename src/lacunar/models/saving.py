"""Models on disk: a readable ``config.json`` beside ``model.safetensors``; nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import lacunar
from lacunar.errors import ConfigError, RunError
from lacunar.models.architecture import build, describe, first_opaque
from lacunar.models.preprocessing import Standardize

__all__ = ["load", "load_model", "read_config", "save", "save_model", "take_types"]

logger = logging.getLogger(__name__)

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PICKLED_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib")


def save_model(model: nn.Module, folder: str | os.PathLike[str], extra: dict[str, Any] | None = None) -> Path:
    """Write a model into a folder of its own, all of it or nothing.

    ``config.json`` holds the format version, class paths and constructor arguments of all modules, the task and the
    modality names; ``model.safetensors`` the weights. A model saved there before is replaced.

    Args:
        model: any module. If one of its classes does not tell its constructor arguments the model can still be
            saved, but loading it needs ``model=``; a warning says so.
        folder: a new folder, or one that holds nothing but a saved model.
        extra: plain data to keep with the model, returned by :func:`read_config` under ``"extra"``.

    Raises:
        ConfigError: when ``extra`` or the state of the model is not plain data.
        RunError: when the folder holds other files.
    """
    target = Path(folder)
    _refuse_foreign(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".unfinished", dir=target.parent))
    try:
        weights = save_tensors(_plain_state(model))
        description = _checked(describe(model, temporary), model, temporary)
        for part in set(os.listdir(temporary)) - _parts(description):
            shutil.rmtree(temporary / part)  # of a model that cannot be built from its description
        config = {
            "format": FORMAT,
            "lacunar": lacunar.__version__,
            "torch": torch.__version__,
            "names": list(getattr(model, "names", ())),
            "task": None if getattr(model, "task", None) is None else model.task.to_config(),  # type: ignore[union-attr, operator]
            "model": description,
            "weights": {"file": WEIGHTS, "sha256": hashlib.sha256(weights).hexdigest()},
            "extra": extra or {},
        }
        _write(temporary / WEIGHTS, weights)
        try:
            _write(temporary / CONFIG, json.dumps(config, indent=1).encode())
        except TypeError as error:
            raise ConfigError(f"save_model: extra must be plain JSON data ({error}).") from error
        os.chmod(temporary, 0o755)
        _exchange(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def load_model(
    folder: str | os.PathLike[str], model: nn.Module | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """A saved model, ready to predict (in evaluation mode), with weights of the types that they were saved in.

    Args:
        folder: written by :func:`save_model`.
        model: the built model into which the weights go; needed when a custom class cannot be imported or does not
            tell its constructor arguments. Built from the configuration when left out.
        device: where it goes.

    Raises:
        RunError: the folder, its version, its weights or its classes are not what they should be, or the weights
            belong to another model; the message says which.
    """
    source = _existing(Path(folder))
    config = read_config(source)
    state = _read_weights(source / WEIGHTS, config)
    if model is None:
        model = build(config["model"], source)
    elif config["names"] and list(getattr(model, "names", config["names"])) != config["names"]:
        raise RunError(
            f"{source} holds a model of the modalities {config['names']}, the given model has {list(model.names)}."  # type: ignore[arg-type]
        )
    _refuse_other_model(source, model, state)
    take_types(model, state)
    model.load_state_dict(state)
    return model.to(device).eval()


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of a saved model: ``format``, ``names``, ``task``, ``model``, ``extra``.

    Raises:
        RunError: when there is none, it is damaged, or a newer version of lacunar wrote it.
    """
    path = _existing(Path(folder)) / CONFIG
    if not path.is_file():
        _refuse_pickles(path.parent)
        raise RunError(f"{path.parent} holds no saved model: {CONFIG} is missing.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = int(config["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: it is not the configuration of a model ({error!r}).") from error
    if version > FORMAT:
        raise RunError(
            f"{path} has format {version}, written by lacunar {config.get('lacunar', '?')}; this is lacunar "
            f"{lacunar.__version__}, which reads formats up to {FORMAT}. Upgrade lacunar."
        )
    absent = [key for key in ("names", "model", "weights", "extra") if key not in config]
    if absent and "asked" in config:
        raise RunError(
            f"{path.parent} is the folder of a run: read it with lacunar.load_run, or load {path.parent / 'model'}."
        )
    if absent:
        raise RunError(f"{path} is damaged: {', '.join(absent)} missing.")
    return config


def _plain_state(model: nn.Module) -> dict[str, Tensor]:
    state = {}
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(f"save_model: {key!r} in the state is a {type(value).__name__}, expected a tensor.")
        # Copies, because safetensors refuses tensors that share memory.
        state[key] = value.detach().cpu().contiguous().clone()
    return state


def _checked(description: dict[str, Any], model: nn.Module, folder: Path) -> dict[str, Any]:
    """The description if the model can be built from it; otherwise one that says why it cannot."""
    opaque = first_opaque(description)
    reason = None
    if opaque is None:
        try:
            with torch.random.fork_rng():
                again = build(description, folder)
        except Exception as error:  # a constructor may fail in any way
            reason = f"building it again failed: {error}"
        else:
            difference = _difference(again.state_dict(), model.state_dict())
            if difference or repr(again) != repr(model):
                reason = f"built again it differs{': ' + difference if difference else ' in its options'}"
        if reason is None:
            return description
        entry = description["$module"]
        description = {"$module": {"class": entry["class"], "opaque": reason}}
        opaque = entry["class"], reason
    logger.warning("%s can only be loaded with model=: %s", *opaque)
    return description


def _refuse_foreign(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise RunError(f"{target} is a file; a model is saved into a folder.")
    known = {CONFIG, WEIGHTS}
    with contextlib.suppress(OSError, ValueError):  # without a configuration nothing else is known to be a model's
        known |= {name for name in _parts(json.loads((target / CONFIG).read_bytes())) if (target / name).is_dir()}
    foreign = sorted(entry.name for entry in target.iterdir() if entry.name not in known)
    if foreign:
        raise RunError(
            f"{target} holds {foreign[0]!r}, which is no part of a saved model. Save into a folder of its own, such "
            f"as {target / 'model'}."
        )


def _parts(description: Any) -> set[str]:
    """Names of the folders that hold what a description does not hold itself."""
    if isinstance(description, list):
        return set().union(*map(_parts, description))
    if not isinstance(description, dict):
        return set()
    saved = description.get("$saved")
    name = str(saved.get("folder")) if isinstance(saved, dict) else ""
    own = {name} if re.fullmatch(r"part\d+", name) else set()
    return own.union(*map(_parts, description.values()))


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.previous")


def _exchange(temporary: Path, target: Path) -> None:
    """Put a complete folder in the place of another; a kill in between leaves the old one to be found."""
    aside = _previous(target)
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(target, aside)
    os.replace(temporary, target)
    shutil.rmtree(aside, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _existing(folder: Path) -> Path:
    if folder.is_dir():
        return folder
    if folder.is_file():
        _refuse_pickled(folder)
        raise RunError(f"{folder} is a file; expected the folder that save_model wrote.")
    if _previous(folder).is_dir():  # killed while it was being replaced
        return _previous(folder)
    raise RunError(f"{folder} does not exist; expected the folder that save_model wrote.")


def _refuse_pickled(path: Path) -> None:
    with open(path, "rb") as file:
        start = file.read(4)
    # A zip archive (torch.save) or a pickle of protocol 2 or later.
    pickled = start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"))
    if path.suffix in _PICKLED_SUFFIXES or (pickled and start[2:3] != b"\x00"):
        raise RunError(
            f"{path} would need unpickling, which can run any code, and lacunar never does it. Build the model, load "
            "the file yourself if you trust it, and save it with lacunar.save."
        )


def _refuse_pickles(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _PICKLED_SUFFIXES:
            _refuse_pickled(path)


def _read_weights(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    if not path.is_file():
        _refuse_pickles(path.parent)
        raise RunError(f"{path} is missing: the folder holds a configuration without its weights.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != config["weights"].get("sha256"):
        _refuse_pickled(path)
        try:
            load_tensors(content)
        except SafetensorError as error:
            raise RunError(f"{path} is damaged and cannot be read as safetensors ({error}).") from error
        raise RunError(
            f"{path} does not belong to the {CONFIG} beside it: its content changed after it was saved. Restore both "
            "files from the same save."
        )
    return load_tensors(content)


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """What differs first between two states, in words; empty when nothing does."""
    missing = [key for key in expected if key not in found]
    surplus = sorted(key for key in found if key not in expected)
    shapes = [
        f"{key} is {tuple(found[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in found and expected[key].shape != found[key].shape
    ]
    parts = []
    for label, items in (("missing", missing), ("not expected", surplus), ("of another shape", shapes)):
        if items:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            parts.append(f"{label}: {', '.join(items[:3])}{more}")
    return "; ".join(parts)


def take_types(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a model, which is built in single precision, the types that its weights were saved in."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if name in state and state[name].dtype != tensor.dtype:
            tensor.data = tensor.data.to(state[name].dtype)
    behind = torch.float32
    for part in reversed(list(model.modules())):
        if isinstance(part, Standardize):  # its statistics say nothing of the type of the weights behind it
            part.to(behind)
        behind = next((p.dtype for p in part.parameters(recurse=False) if p.is_floating_point()), behind)


def _refuse_other_model(source: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    difference = _difference(model.state_dict(), state)
    if difference:
        raise RunError(f"{source} holds the weights of another model than {type(model).__name__}. {difference}.")


save, load = save_model, load_model
