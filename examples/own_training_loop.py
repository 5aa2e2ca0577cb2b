"""Track the per-layer Fisher information of your own model in your own training loop.

    python examples/own_training_loop.py [FOLDER]

Writes FOLDER/run.h5 and FOLDER/heatmap.png. Needs no download: the images come with fisherkit.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import fisherkit


def main(folder: Path) -> None:
    train, test = fisherkit.load_images("fashion-mini")
    train = train.subset(1000, seed=0)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 64, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with fisherkit.FisherTracker(folder / "run.h5", model, train.subset(200, seed=0)) as tracker:
        for epoch in range(8):
            for rows in torch.randperm(len(train)).split(64):
                loss = nn.functional.cross_entropy(model(train.normalised(rows)), train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                accuracy = (model(test.normalised()).argmax(1) == test.labels).double().mean()
            row = tracker.record(epoch + 1, test_accuracy=float(accuracy))
            print(f"epoch {epoch + 1}: test accuracy {accuracy:.1%}, tr F {row.total:.3g} ± {row.total_stderr:.1g}")
    figure = fisherkit.plots.heatmap(fisherkit.read(folder / "run.h5"))
    fisherkit.plots.save(figure, folder / "heatmap.png")
    print(folder / "heatmap.png")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "own-run")
    target.mkdir(parents=True, exist_ok=True)
    main(target)
