"""The options of ``lacunar plan``; nothing here imports what plans, so that help is quick."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser

from lacunar.cli.options import make_parser

__all__ = ["fit_options", "parser"]


def fit_options(
    max_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    accelerator: str | None = None,
    patience: int | None = None,
) -> dict[str, Any]:
    """How networks are trained; what is left out is as in lacunar train.

    Args:
        max_epochs: passes over the training samples
        batch_size: most samples in a batch
        lr: highest learning rate
        weight_decay: of weight matrices
        accelerator: where to compute: auto, cpu, gpu, mps
        patience: epochs without a better validation after which to stop
    """
    return {name: value for name, value in locals().items() if value is not None}


def parser() -> ArgumentParser:
    """The options of the command."""
    made = make_parser(
        "plan", "Which modalities to collect next, how many, and whether generating the rest helps. Writes one page "
        "for whoever decides and plan.json for whoever checks.",
    )  # fmt: skip
    made.add_argument("--config", action="config", help="these options in a YAML file")
    made.add_argument("--data", type=str, help="the pilot: a YAML description, or the name of a data set (digits)")
    made.add_argument("--costs", type=str, help="YAML file: a price per cell for each modality, and more if you like")
    made.add_argument("--budget", type=float | None, default=None, help="what can be spent; this or --target")
    made.add_argument(
        "--target", type=float | None, default=None, help="the score to reach, losses negated; this or --budget"
    )
    made.add_argument("--out", type=str | None, default=None, help="folder for plan.html and plan.json")
    made.add_argument(
        "--model", type=str, default="auto",
        help="linear (seconds), boosting, default (the network of lacunar train: minutes to hours), "
        "package.module.function, or auto: linear where every modality is columns, else default",
    )  # fmt: skip
    made.add_argument(
        "--strategy", type=str, default="rehearsal",
        help="rehearsal, sk-ll, utility-per-cost, even, best-single, random",
    )  # fmt: skip
    made.add_argument("--metric", type=str | None, default=None, help="accuracy, log_loss, f1, r2, mae, ...")
    made.add_argument("--completer", type=str, default="ridge", help="what generates the rest: ridge, knn, mean, ...")
    made.add_argument("--seeds", type=int, default=5, help="repeats of everything that is measured")
    made.add_argument("--n_jobs", type=int, default=1, help="models trained at a time")
    made.add_argument("--top", type=int, default=3, help="how many combinations are rehearsed, all together aside")
    made.add_argument("--min_gain", type=float, default=0.0, help="the smallest gain worth buying for")
    made.add_argument("--confidence", type=float, default=0.95, help="coverage of the intervals")
    made.add_argument("--assurance", type=float, default=0.5, help="how surely a target is to be reached")
    made.add_argument("--estimator", type=str | None, default=None, help="of the utilities: retrain or amortised")
    made.add_argument(
        "--subgroups", type=str | None, default=None,
        help="attributes to report by, between commas; all of the data's when left out, none for 'none'",
    )  # fmt: skip
    made.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    made.add_argument("--seed", type=int, default=0, help="of the draws")
    made.add_argument("--split_seed", type=int, default=0, help="seed of the split, where the data name one")
    made.add_argument(
        "--backtest", type=bool, nargs="?", const=True, default=False,
        help="also try the rules on samples whose values are known: hide some, let each rule buy, and compare",
    )  # fmt: skip
    made.add_argument(
        "--strategies", type=str | None, default=None, help="rules to backtest, between commas; all when left out"
    )
    made.add_argument("--available", type=float, default=0.3, help="backtest: share of its samples that is the pilot")
    made.add_argument(
        "--backtest_budget", type=float | None, default=None,
        help="backtest: what each rule spends; when left out the budget in proportion to its smaller pilot",
    )  # fmt: skip
    made.add_function_arguments(fit_options, "fit", as_group=True)
    made.add_argument("--quiet", type=bool, nargs="?", const=True, default=False, help="say only what came out")
    return made
