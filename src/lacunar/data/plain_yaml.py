"""YAML as people write it: nothing is executed, no key is there twice, and 1e-3 is a number."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from lacunar.errors import ConfigError

__all__ = ["read_yaml"]


def read_yaml(path: str | os.PathLike[str], what: str) -> Any:
    """What a file says, whatever that is.

    Args:
        path: of the file.
        what: the file is, for messages.

    Raises:
        ConfigError: no such file, not UTF-8, not YAML, or a key that is there twice.
    """
    source = Path(path)
    try:
        if not source.exists():
            raise ConfigError(f"{what} not found: {source}.")
        return yaml.load(source.read_text(encoding="utf-8-sig"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{source} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: not a YAML file in UTF-8 ({error}). Save it as UTF-8.") from error
    except yaml.YAMLError as error:
        hint = " A text that begins with * needs quotes." if "alias" in str(error) else ""
        raise ConfigError(f"{source}: not a YAML file ({' '.join(str(error).split())}).{hint}") from error


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that is there twice is an error instead of a silent loss."""

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._looked_at: set[int] = set()

    def flatten_mapping(self, node: Any) -> None:
        if id(node) not in self._looked_at:  # once: then what "<<" merges stands in it, too
            self._looked_at.add(id(node))
            seen: set[Any] = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (str, int, float, bool)):
                    if key in seen:
                        raise yaml.constructor.ConstructorError(
                            None, None, f"the key {key!r} is there twice", key_node.start_mark
                        )
                    seen.add(key)
        super().flatten_mapping(node)


# By YAML 1.1 a number with an exponent needs a point and a sign: 1e-3 would be text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
