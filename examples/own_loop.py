"""MCE in a training loop of your own: three lines of it are lacunar's."""

import torch
from torch.utils.data import DataLoader

import lacunar as lc


def main(epochs: int = 5) -> None:
    """Train with plain PyTorch and score every subset."""
    data = lc.datasets.load("synthetic", n=900).data.split(train=0.6, val=0.15, test=0.25, seed=0)
    data = data.hide(dict(zip(data.names, (0.1, 0.5, 0.8))), seed=0)
    model = lc.default_model(data.train)

    objective = lc.MCE(references=lc.references(data.train))  # 1
    objective.setup(model, data.train)  # 2
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], 1e-3)
    for epoch in range(epochs):
        model.train()
        for batch in DataLoader(data.train, batch_size=64, shuffle=True, collate_fn=lc.collate):
            loss = sum(objective(model, batch).values())  # 3
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss of the last batch {loss.item():.3f}")
    print(lc.evaluate(model, data.test))


if __name__ == "__main__":
    main()
