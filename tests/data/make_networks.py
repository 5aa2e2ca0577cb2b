"""Makes tests/data/networks.npz: one small network, half-trained, fitted and fitted further, to test error bars on.

    python tests/data/make_networks.py

Stored because training is chaotic: on another machine's arithmetic, or with another number of threads than the 2
these were made with, it would be another network.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import fisherkit

IMAGES, WIDTH = 1500, 128
STAGES = {"half": 0.5, "fitted": 0.03, "overfitted": 0.002}  # training loss at which each is taken


def main() -> None:
    images, labels = pooled()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    stored = {}
    for name, target in STAGES.items():
        loss = torch.inf
        while loss > target:
            for rows in torch.randperm(IMAGES, generator=generator).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(nn.functional.cross_entropy(model(images), labels))
        print(name, loss)
        stored |= {f"{name}.{key}": value.numpy().copy() for key, value in model.state_dict().items()}
    np.savez_compressed(Path(__file__).with_name("networks.npz"), **stored)


def pooled() -> tuple[torch.Tensor, torch.Tensor]:
    """1,500 Fashion-MNIST images as 8 x 8 averages, and their labels."""
    train, _ = fisherkit.load_images("fashion-mini")
    return nn.functional.avg_pool2d(train.normalised()[:IMAGES], 4).flatten(1), train.labels[:IMAGES]


if __name__ == "__main__":
    main()
