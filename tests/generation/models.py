"""A small model trained in a loop of a few lines, on complete data or on every subset."""

import torch
from tests.helpers import first_batch, small_model

from lacunar.lattice import Pairs


def trained(data, every_subset=False, steps=60, seed=0):
    """Linear encoders and head, fitted to all samples at once."""
    model, batch = small_model(data, features=8, seed=seed, completion=False), first_batch(data)
    pairs = model.lattice.pairs(batch.present)
    if not every_subset:
        full = pairs.codes == 2**model.lattice.M - 1
        pairs = Pairs(pairs.rows[full], pairs.codes[full])
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = data.task.loss(model.predict_pairs(batch, pairs), batch.target[pairs.rows]).mean()
        loss.backward()
        optimiser.step()
    return model.eval()
