"""``lacunar predict``: new samples in, a table of predictions out, one row for every row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lacunar.cli.console import say, show_log
from lacunar.cli.options import make_parser, parse
from lacunar.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["run"]

FORMATS = (".csv", ".parquet")


def run(words: Sequence[str]) -> int:
    """Predict every row; one that has nothing gets the prior and a flag."""
    parser = make_parser("predict", "Predict new samples, whichever modalities they have.")
    parser.add_argument("run", type=str, help="folder of a run")
    parser.add_argument(
        "--data", type=str, help="a YAML description, or a table with the columns of the training table"
    )
    parser.add_argument("--out", type=str, help="file to write: .csv or .parquet; printed when left out")
    parser.add_argument(
        "--batch_size", type=int | None, default=None, help="samples at a time; chosen by their size when left out"
    )
    options = parse(parser, words)
    if not options.data:
        raise ConfigError("--data is needed, for example --data new.yaml.")
    target = None if options.out is None else Path(options.out)
    if target is not None and target.suffix not in FORMATS:
        raise ConfigError(f"--out: expected a path that ends in .csv or .parquet, got {options.out!r}.")
    if target is not None and target.suffix == ".parquet":
        _need_parquet()
    show_log(quiet=True)

    from lacunar.cli.source import new_data
    from lacunar.prediction import predict
    from lacunar.training.run import load_run

    finished = load_run(options.run)
    data = new_data(options.data, Path(options.run), finished.model.task, predict=True)
    table = predict(finished.model, data, options.batch_size)
    if target is None:
        say(*table.to_csv(index=False).splitlines())
        return 0
    _write(table, target)
    flagged = int((table["flag"] != "").sum())
    say(f"{len(table)} predictions in {target}" + (f"; {flagged} flagged: nothing was observed" if flagged else ""))
    return 0


def _need_parquet() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "Writing Parquet tables") from error


def _write(table: pd.DataFrame, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if target.suffix == ".csv":
            table.to_csv(partial, index=False)
        else:
            table.to_parquet(partial, index=False)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
