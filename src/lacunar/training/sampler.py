"""Which samples form each batch: a function of seed and epoch alone, on one process or on many."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from lacunar.data.batch import Batch, collate
from lacunar.data.dataset import MultimodalDataset

__all__ = ["EpochLoader", "GlobalBatches", "derive_seed", "reseed"]

#: What a derived seed is for; part of the key, so that no two streams of random numbers coincide.
STREAMS = {"order": 0, "step": 1, "epoch start": 2, "epoch end": 3, "setup": 4, "gradients": 5}


def derive_seed(seed: int, stream: str, *position: int) -> int:
    """A seed of its own for each use, 64 bits, from the run's seed and a position such as epoch and step.

    Nothing is carried over from one step to the next, so a run that is continued draws what it would have drawn.
    """
    entropy = np.random.SeedSequence([seed, STREAMS[stream], *position])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


def reseed(device: torch.device, seed: int, stream: str, *position: int) -> None:
    """Set the global generators of the CPU and of a device to a derived seed.

    ``torch.manual_seed`` also seeds kinds of devices that are not there, and keeps a stack trace for each: a
    millisecond and some memory in every step.
    """
    value = derive_seed(seed, stream, *position)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


class GlobalBatches(Sampler[list[int]]):
    """The batches of one epoch.

    Samples are shuffled and cut into ``ceil(count / batch_size)`` batches whose sizes differ by at most one, so no
    epoch ends on a batch of a few samples that weighs as much as a full one. Of each batch, process ``rank`` takes
    every ``world``-th sample from the ``rank``-th on: all processes make the same number of steps, each sample
    occurs once, and a share may be empty.

    Args:
        count: number of samples.
        batch_size: most samples in a batch, over all processes.
        seed: of the run.
        epoch: number of the epoch, from 0.
        rank: number of this process.
        world: number of processes.
        shuffle: False keeps the samples in order.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        shuffle: bool = True,
    ):
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, epoch
        self.rank, self.world, self.shuffle = rank, world, shuffle

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
            order = torch.randperm(self.count, generator=generator)
        else:
            order = torch.arange(self.count)
        for batch in order.tensor_split(len(self)) if self.count else ():
            yield batch[self.rank :: self.world].tolist()


class EpochLoader:
    """Packed batches of one epoch after another, as Lightning iterates over them.

    Args:
        prepare: gives the number of the epoch that is about to run and its samples; called before the first batch.
        batch_size: most samples in a batch, over all processes.
        seed: of the run.
        rank, world: share of this process.
        num_workers: processes that load batches; 0 loads them in this one.
        pin_memory: put batches into page-locked memory.
    """

    def __init__(
        self,
        prepare: Callable[[], tuple[int, MultimodalDataset]],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        self.prepare, self.batch_size, self.seed = prepare, batch_size, seed
        self.rank, self.world, self.num_workers, self.pin_memory = rank, world, num_workers, pin_memory

    def __len__(self) -> int:
        return len(GlobalBatches(len(self.prepare()[1]), self.batch_size))

    def __iter__(self) -> Iterator[Batch]:
        # A generator: Lightning asks for the iterator before the epoch starts, and draws from it after.
        epoch, data = self.prepare()
        batches = GlobalBatches(len(data), self.batch_size, self.seed, epoch, self.rank, self.world)
        yield from load(data, batches, self.num_workers, self.pin_memory)


def load(
    data: MultimodalDataset, batches: GlobalBatches, num_workers: int = 0, pin_memory: bool = False
) -> Iterator[Batch]:
    """Packed batches of the rows that ``batches`` names."""
    if not num_workers:
        for rows in batches:
            batch = data.__getitems__(rows)
            yield batch.pin_memory() if pin_memory else batch
        return
    # The loader seeds its workers from the global generator, which then must not move the stream of the steps.
    generator = torch.Generator().manual_seed(derive_seed(batches.seed, "order", batches.epoch, 1))
    yield from DataLoader(
        data,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=generator,
    )
