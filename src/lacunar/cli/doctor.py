"""``lacunar doctor``: what is installed, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version

from lacunar.cli.console import say, table

__all__ = ["run"]

FOR_DEVELOPERS = ("dev",)


def run(words: Sequence[str]) -> int:
    """Print versions, extras, threads and devices; 1 when a core package is missing."""
    from lacunar.errors import ConfigError

    parser = argparse.ArgumentParser(
        prog="lacunar doctor",
        description="Versions, optional packages and devices, and what to do about what is missing.",
    )
    _, unknown = parser.parse_known_args(list(words))
    if unknown:
        raise ConfigError(f"lacunar doctor takes no options, got {unknown[0]!r}.")
    core, extras = requirements()
    say(f"lacunar {installed('lacunar') or '?'} on Python {platform.python_version()}, {platform.platform()}")
    say(f"interpreter {sys.executable}", "")
    missing = [name for name in core if installed(name) is None]
    table("core packages", ["package", "version"], [[name, installed(name) or "MISSING"] for name in core], left=2)
    say("")
    rows = []
    for extra, packages in extras.items():
        lacking = [name for name in packages if installed(name) is None]
        have = ", ".join(f"{name} {installed(name)}" for name in packages if name not in lacking)
        fix = f"pip install 'lacunar[{extra}]'" if lacking else ""
        rows.append([extra, "missing: " + ", ".join(lacking) if lacking else have, fix])
    table("extras (optional)", ["extra", "packages", "to add it"], rows, left=3)
    say("", *_machine())
    if missing:
        say("", f"Core packages are missing: pip install --upgrade lacunar (lacks {', '.join(missing)}).", style="bold")
        return 1
    say("", "Everything that lacunar needs is here.")
    return 0


def requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the core packages, and of the packages of each extra, as the installed lacunar declares them."""
    core: list[str] = []
    extras: dict[str, list[str]] = {}
    for line in distribution("lacunar").requires or []:
        name = re.split(r"[\s\[<>=!~;(]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", line)
        if extra is None:
            core.append(name)
        elif extra.group(1) not in FOR_DEVELOPERS:
            extras.setdefault(extra.group(1), []).append(name)
    return core, extras


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> list[str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    lines = [f"processor: {cores} cores for this process"]
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    if threads:
        lines.append("set in the environment: " + ", ".join(f"{name}={value}" for name, value in threads.items()))
    try:
        import torch
    except ImportError as error:
        return [*lines, f"torch cannot be imported: {error}"]
    lines.append(f"torch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            lines.append(f"GPU {number}: {facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        lines.append("GPU: Apple, through mps")
    else:
        built = "" if torch.version.cuda else " (this torch is built for CPU; see pytorch.org for a CUDA build)"
        lines.append(f"GPU: none{built}; training runs on the CPU")
    return lines
