"""Runs what needs processes of its own: kills, and several processes that train together.

Imports once, computes nothing itself, and forks a child for everything that it is asked for. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", LACUNAR_PROGRESS="none")

import pytorch_lightning as pl
import skops.io  # noqa: F401  seconds to import, so once for all children
import torch
import torch.distributed as dist

import lacunar.models.saving  # noqa: F401
from lacunar.objectives import available
from lacunar.training import checkpoint, files
from lacunar.training.fit import fit
from tests.helpers import small_model
from tests.training.worlds import dropping_model, mce, objective, splits

KILLED = -signal.SIGKILL


def forked(work: Callable[[], None]) -> int:
    """Run in a child process and return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            torch.set_num_threads(1)
            work()
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


class KillAt(pl.Callback):
    def __init__(self, epoch: int, batch: int):
        self.at = (epoch, batch)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            die()


def train(out: Path, *callbacks: pl.Callback) -> None:
    data = splits()
    fit(
        data, dropping_model(data), mce(data), max_epochs=4, batch_size=8, accumulate=2, average=0.9, out=out,
        callbacks=callbacks, experts=False, snapshots=2,
    )  # fmt: skip


def kill_while_writing_checkpoint(out: Path) -> None:
    whole = torch.save

    def half(content, file):
        import io

        buffer = io.BytesIO()
        whole(content, buffer)
        file.write(buffer.getvalue()[: buffer.tell() // 2])
        file.flush()
        die()

    checkpoint.torch = type("torch", (), {"save": staticmethod(half), "load": staticmethod(torch.load)})
    train(out)


def kill_at_name(name: str) -> Callable[[Path], None]:
    """Die when a file is about to take this name for the second time (the first, when there is only one)."""

    def work(out: Path) -> None:
        replace, seen = os.replace, [0]

        def guarded(source, target):
            if Path(target).name == name:
                seen[0] += 1
                if seen[0] == (2 if name == "checkpoint.pt" else 1):
                    die()
            replace(source, target)

        files.os.replace = guarded
        train(out)

    return work


def kill_at_random_times(out: Path) -> None:
    """Kills from outside, at times that nothing in the child knows."""
    draw = random.Random(0)
    for _ in range(3):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            train(out)
            os._exit(0)
        until = time.monotonic() + 30
        while not (out / "start.safetensors").exists() and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(draw.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def kills(folder: Path) -> dict:
    draw = random.Random(int.from_bytes(os.urandom(4), "big"))
    last = len(range(0, 63, 8)) - 1
    points = [(0, draw.randrange(last)), (1, draw.randrange(last)), (2, last), (3, draw.randrange(last))]
    ways: dict[str, list[Callable[[Path], None]]] = {
        "random steps": [lambda out, at=at: train(out, KillAt(*at)) for at in points],
        "half a checkpoint": [kill_while_writing_checkpoint] * 2,
        "before the checkpoint takes its name": [kill_at_name("checkpoint.pt")],
        "before the first checkpoint": [lambda out: train(out, KillAt(0, 3))],
        "while results are written": [
            kill_at_name("selected.safetensors"),
            kill_at_name("model"),
            kill_at_name("result.json"),
        ],
        "while references are written": [kill_at_name("references")],
    }
    whole = folder / "whole"
    answer: dict = {"points": points, "whole": forked(lambda: train(whole)), "ways": {}}
    for name, steps in ways.items():
        out = folder / name.replace(" ", "-")
        codes = [forked(lambda step=step, out=out: step(out)) for step in steps]
        answer["ways"][name] = {"codes": codes, "end": forked(lambda out=out: train(out)), "out": str(out)}
    out = folder / "from-outside"
    kill_at_random_times(out)
    answer["ways"]["from outside"] = {"codes": [], "end": forked(lambda: train(out)), "out": str(out)}
    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def together(work: Callable[[int], None], world: int = 2) -> list[int]:
    """Run in several processes that meet through gloo, and return their exit codes."""
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(free_port()), WORLD_SIZE=str(world))
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 0
            try:
                torch.set_num_threads(1)
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
                signal.alarm(60)  # a hang is a failure
                work(rank)
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def losses(name: str, case: str, folder: Path) -> None:
    """Loss terms, diagnostics and gradients of one global batch, on one process or on two."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    data = splits()
    train_part = data.train
    rows = {"plain": list(range(21)), "no rows on one": [3]}.get(case)
    if case == "absent on one":  # modality m1 is on process 0 alone
        present = train_part.present[:, 1]
        have, lack = present.nonzero().flatten().tolist()[:8], (~present).nonzero().flatten().tolist()[:8]
        rows = [row for pair in zip(have, lack) for row in pair]
    model, method = small_model(train_part, seed=3), objective(name, data)
    method.setup(model, train_part)
    torch.manual_seed(0)
    for parameter in [*model.parameters(), *method.parameters()]:
        parameter.data = torch.randn_like(parameter) * 0.3
    batch = train_part.__getitems__(rows[rank::world])
    terms = method(model, batch)
    module = [*model.parameters(), *method.parameters()]
    torch.stack(list(terms.values())).sum().backward()
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in module])
    values = torch.stack([term.detach() for term in terms.values()])
    shown = torch.cat([value.reshape(-1).float() for value in method.diagnostics.values()] or [torch.zeros(1)])
    if world > 1:  # what DistributedDataParallel does to gradients
        dist.all_reduce(flat)
        dist.all_reduce(values)
        flat, values = flat / world, values / world
    if rank == 0:
        torch.save({"gradient": flat, "terms": values, "diagnostics": shown}, folder / f"{name}-{case}-{world}.pt")


def gloo(folder: Path) -> dict:
    answer = {}
    for name in ("Joint", "MCE"):
        for case in ("plain", "absent on one", "no rows on one"):

            def alone(name=name, case=case):
                losses(name, case, folder)

            def both(rank, name=name, case=case):
                dist.init_process_group("gloo")
                losses(name, case, folder)
                dist.barrier()
                dist.destroy_process_group()

            answer[f"{name}-{case}"] = [forked(alone), *together(both)]
    return answer


def launched(folder: Path) -> dict:
    """``fit`` as a launcher such as torchrun starts it, with batches of one row: one process has none at every step."""

    def train_together(devices: int, batch_size: int, out: Path) -> None:
        data = splits(n=30)
        options = {"accelerator": "cpu", "devices": devices, "strategy": "ddp" if devices > 1 else "auto"}
        run = fit(
            data,
            small_model(data.train),
            mce(data),
            max_epochs=2,
            batch_size=batch_size,
            out=out,
            experts=False,
            **options,
        )
        assert not dist.is_initialized()
        assert len(run.history) == 2

    answer = {}
    for batch_size in (1, 8):
        one, two = folder / f"launched-1-{batch_size}", folder / f"launched-2-{batch_size}"
        codes = [forked(lambda b=batch_size, out=one: train_together(1, b, out))]
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        codes += together(lambda rank, b=batch_size, out=two: train_together(2, b, out))
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
        answer[str(batch_size)] = {"codes": codes, "one": str(one), "two": str(two)}
    return answer


def every_method(folder: Path) -> dict:
    """Two processes train with every method; parts that a method replaces or rests get no gradient there."""

    def train_together(name: str) -> None:
        data = splits(n=40)
        options = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
        run = fit(
            data, dropping_model(data), objective(name, data), max_epochs=3, batch_size=8, experts=False, **options
        )
        weights = torch.cat([value.flatten() for value in run.model.state_dict().values()])
        torch.save(weights, folder / f"every-{name}-{os.environ['RANK']}.pt")

    answer = {}
    for name in available():
        answer[name] = together(lambda rank, name=name: train_together(name))
        for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(variable, None)
    return answer


if __name__ == "__main__":
    home = Path(sys.argv[1])
    print(json.dumps({job: globals()[job](home) for job in sys.argv[2:]}))
