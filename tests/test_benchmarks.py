"""What the benchmarks compare is the same work."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from training_cases import assert_same_weights, conv_net, image_set, training

from fisherkit.training import Training, augment_given

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def plain_loop(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import plain_loop

    return plain_loop


def batches_of_the_harness(made: Training) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Those of the coming epoch."""
    batches = made._data.batches(made.conditions.at(made.epoch))
    return (batches.batch(number) for number in range(len(batches)))


def labels_by_input(inputs: torch.Tensor, labels: torch.Tensor) -> dict[bytes, int]:
    """The label of every input, found by its bits."""
    return {row.numpy().tobytes(): int(label) for row, label in zip(inputs, labels, strict=True)}


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_plain_loop_trains_as_the_harness_does_to_the_bit(plain_loop: ModuleType, channels_last: bool) -> None:
    conditions = {"augment": ["crop+flip"], "weight_decay": ["0.01"]}
    options = {"lr": 0.1, "lr_schedule": "constant", "channels_last": channels_last}
    made = training(conditions=conditions, **options)
    model = conv_net().to(memory_format=torch.channels_last) if channels_last else conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(2):
        batches = batches_of_the_harness(made)
        loss, accuracy = plain_loop.train_epoch(model, optimizer, batches, channels_last=channels_last)
        report = next(made.epochs())
        assert loss == pytest.approx(report.train_loss, rel=1e-6)
        assert accuracy == report.train_accuracy
    assert_same_weights(model, made.model)


def test_an_epoch_of_the_loader_has_every_image_once_and_normalised_as_in_the_set(plain_loop: ModuleType) -> None:
    images = image_set(20)
    loaded = list(plain_loop.loader(images, batch_size=8, workers=0, augment=False))
    assert [len(labels) for _, labels in loaded] == [8, 8, 4]
    rows, labels = (torch.cat(parts) for parts in zip(*loaded, strict=True))
    expected = {
        tuple(row.flatten().tolist()): int(k) for row, k in zip(images.normalised(), images.labels, strict=True)
    }
    assert {tuple(row.flatten().tolist()): int(k) for row, k in zip(rows, labels, strict=True)} == expected
    assert len(expected) == 20


def test_the_loader_augments_each_image_in_one_of_the_ways_of_the_harness(plain_loop: ModuleType) -> None:
    images = image_set(2)
    corners = torch.cartesian_prod(torch.arange(9), torch.arange(9)).repeat(2, 1)  # 81 places, flipped and not
    ways: set[bytes] = set()
    for pixels in images.images:
        made = augment_given(pixels.expand(162, -1, -1, -1).contiguous(), corners, torch.arange(162) < 81)
        ways |= {row.numpy().tobytes() for row in made}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        dataset = plain_loop.SingleImages(images, (plain_loop.random_crop, plain_loop.random_flip))
        seen = {dataset[k % 2][0].contiguous().numpy().tobytes() for k in range(1000)}
    assert seen <= ways
    assert len(ways) == 2 * 162
    assert len(seen) > 0.9 * len(ways)  # 1 - exp(-1000 / 324) = 0.95 of them


def test_time_in_the_model_is_that_of_its_steps_and_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import training_throughput

    ticks = iter(range(1000))
    monkeypatch.setattr(training_throughput.time, "perf_counter", lambda: float(next(ticks)))
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clock = training_throughput.ModelClock()
    clock.watch(model, optimizer)
    for _ in range(3):  # two readings of the clock, one tick apart
        model(torch.zeros(2, 3, 8, 8)).sum().backward()
        optimizer.step()
    assert clock.spent == 3
    model.eval()
    model(torch.zeros(2, 3, 8, 8))
    assert clock.spent == 4


def test_tables_of_several_settings_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import tables
    import training_throughput

    path = tmp_path / "t.json"
    for title, median in (("one", 1.0), ("two", 2.0), ("one", 3.0)):
        row = {"name": "harness", "median": median, "min": 0.5, "max": 4.0, "n": 5, "outside": 1.234}
        training_throughput.write(path, {"title": title, "environment": {}, "rows": [row]})
    made = tables.tables(path)
    assert [text.splitlines()[0] for text in made] == [f"**{t}** ([t.json](benchmarks/t.json))" for t in ("one", "two")]
    assert "| harness | 3.00 [0.50, 4.00] | 1.23 |" in made[0]
    assert made[0].endswith("n = 5 interleaved rounds.")
