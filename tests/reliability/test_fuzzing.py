"""Fuzzing: whatever a text or a file says, it is read, or refused with the error meant for it; nothing hangs."""

import json
import os
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reliability.corpus_hdf5 import RUN
from reliability.corpus_images import release

from fisherkit.conditions import Conditions
from fisherkit.errors import UnreadableFile
from fisherkit.images import cifar, idx
from fisherkit.images.contents import Content
from fisherkit.images.pickles import load_data
from fisherkit.images.releases import OfficialFile
from fisherkit.recording import from_bytes, read
from fisherkit.studies.execution import ExecutorChoice
from fisherkit.studies.folder import read_specification
from fisherkit.studies.protocols.custom import read_grid

FULL, SHORT = 4_000, 60  # of each of the six; 24,000 in all
Fuzz = Callable[[Any, Callable[[Any], None]], int]


@pytest.fixture
def fuzz(count: Any) -> Fuzz:
    """`fuzz(strategy, check)`: draw and check; how often."""
    times, done = count(short=SHORT, full=FULL), []

    def run(strategy: Any, check: Callable[[Any], None]) -> int:
        @settings(max_examples=times, deadline=20_000, database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def one(value: Any) -> None:
            done.append(None)
            check(value)

        one()
        return len(done)

    return run


def attempt(errors: Any, call: Callable[[], Any]) -> tuple[Any, str]:
    """What the call gives, or None and what the error says."""
    try:
        return call(), ""
    except errors as error:
        return None, str(error) or "no message"


def changes_of(data: bytes) -> Any:
    """The data with up to three changes: bytes replaced, added, cut or doubled, numbers of 1 to 8 bytes put in."""
    numbers = st.sampled_from((0, 1, 127, 128, 255, 2**15, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, len(data)))
    sizes = st.sampled_from((1, 2, 4, 8))
    put = st.builds(lambda number, size: (number % 2 ** (8 * size)).to_bytes(size, "little"), numbers, sizes)
    one = st.tuples(st.integers(0, len(data)), st.integers(0, 16), put | st.binary(max_size=12))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        changed = data
        for place, cut, new in changes:
            changed = changed[:place] + new + changed[place + cut :]
        return changed

    return st.lists(one, min_size=1, max_size=3).map(apply) | st.binary(max_size=200)


# texts near the grammar, and any others
PARTS = st.sampled_from(
    [
        *(
            "blur",
            "noise",
            "flip",
            "occlude",
            "lr_restart",
            "shrink_perturb",
            "crop",
            "none",
            "local",
            "dask",
            "tcp://",
        ),
        *("(", ")", ":", "-", ",", "+", ".", " ", "0", "1", "40", "1e9", "nan", "a.b:c", "9" * 30),
        *("\u0660", "\x1b", "\u202e"),
    ]
)
TEXTS = st.lists(PARTS, max_size=9).map("".join) | st.text(max_size=30)
FIELDS = ("deficits", "weight_decay", "augment", "fraction", "events")


def test_window_grammar(fuzz: Fuzz, publish: Any) -> None:
    def check(value: tuple[str, str]) -> None:
        field, text = value
        parsed, problem = attempt(ValueError, lambda: Conditions.parse(**{field: [text]}))
        if problem:
            assert problem.endswith("'.")  # with an example
            return
        again = [str(each) for each in getattr(parsed, field)]
        assert getattr(Conditions.parse(**{field: again}), field) == getattr(parsed, field)

    done = fuzz(st.tuples(st.sampled_from(FIELDS), TEXTS), check)
    publish("13 fuzzing, windows", f"{done:,} cases: no crash, no hang, no stray exception")


def test_executors(fuzz: Fuzz, publish: Any) -> None:
    def check(text: str) -> None:
        choice, problem = attempt(ValueError, lambda: ExecutorChoice.parse(text))
        assert problem.startswith("executor must") if problem else choice.kind in ("local", "dask")

    done = fuzz(TEXTS | st.lists(PARTS, max_size=5).map(lambda parts: "dask:" + "".join(parts)), check)
    publish("13 fuzzing, executors", f"{done:,} cases: no crash, no hang, no stray exception")


def test_idx(fuzz: Fuzz, publish: Any) -> None:
    made = release("mnist")
    images, labels = (made.files[file.name] for file in made.layout.train)
    short = images[: 16 + 28 * 28]

    def check(value: tuple[bytes, bytes]) -> None:
        pixels, numbers = value
        files = (("images", pixels, 1), ("labels", numbers, len(numbers) - 8))
        contents = [Content(OfficialFile(n, k, len(d), "sha256:0"), d, Path(n)) for n, d, k in files]
        decoded, problem = attempt(UnreadableFile, lambda: idx.decode(contents, classes=10))
        if not problem:
            assert decoded[0].shape[1:] == (1, 32, 32)
            assert set(decoded[1].tolist()) <= set(range(10))

    done = fuzz(st.tuples(changes_of(short), changes_of(labels)), check)
    publish("13 fuzzing, IDX", f"{done:,} cases: no crash, no hang, no stray exception")


def test_cifar(fuzz: Fuzz, publish: Any) -> None:
    small = release("cifar10 pickles").files["data_batch_1"]
    head = small[:400] + small[-400:]

    def check(value: tuple[str, bytes]) -> None:
        kind, data = value
        content = Content(OfficialFile("batch", 24, len(data), "md5:0", exact=False), data, Path("batch"))
        if kind == "pickle":
            attempt(ValueError, lambda: load_data(data, steps=1_000))
        elif kind == "batch":
            attempt(UnreadableFile, lambda: cifar.decode_python([content], label_key="labels", classes=10))
        else:  # whose size has been checked before
            usable = Content(content.file, data[: len(data) // 3073 * 3073], content.place)
            found, _ = attempt(UnreadableFile, lambda: cifar.decode_binary([usable], label_bytes=1, classes=10))
            assert found is None or found[1].max(initial=0) < 10

    binary = release("cifar10 binary").files["test_batch.bin"][: 2 * 3073]
    drawn = st.one_of(
        st.tuples(st.just("pickle"), changes_of(head)),
        st.tuples(st.just("batch"), changes_of(small)),
        st.tuples(st.just("binary"), changes_of(binary)),
    )
    done = fuzz(drawn, check)
    publish("13 fuzzing, CIFAR", f"{done:,} cases: no crash, no hang, no stray exception")


def test_run_files(fuzz: Fuzz, publish: Any, tmp_path: Path) -> None:
    good, path, stopped = from_bytes(RUN), tmp_path / "run.h5", set()
    structure = np.flatnonzero(np.frombuffer(RUN, np.uint8))  # most changes where something is
    places = st.lists(st.tuples(st.sampled_from(structure.tolist()), st.integers(0, 255)), min_size=1, max_size=4)

    def apply(changes: list[tuple[int, int]]) -> bytes:
        data = bytearray(RUN)
        for place, value in changes:
            data[place] = value
        return bytes(data)

    def check(data: bytes) -> None:
        path.write_bytes(data)
        found, problem = attempt(UnreadableFile, lambda: read(path))
        assert problem.startswith(str(path)) if problem else not found.differences(good, ignore=())
        if "cannot be read" in problem:
            stopped.add(data)

    done = fuzz(places.map(apply) | changes_of(RUN), check)
    publish(
        "13 fuzzing, run.h5",
        f"{done:,} cases: no crash, no hang, no stray exception; {len(stopped)} would have hung or crashed the HDF5 "
        "library, and were stopped in the process that reads",
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
RUN_JSON = {"model": "linear", "epochs": 1, "lr": 0.1, "lr_schedule": "constant", "momentum": 0.9, "deficit": ["blur"]}
GRID = b"""[run]
model = "linear"
epochs = 1
[grid]
lr = [0.1, 0.01]
deficit = ["", "blur:0-1"]
[control]
lr = 0.1
"""


def test_configuration(fuzz: Fuzz, publish: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"

    def check(value: tuple[str, bytes]) -> None:
        kind, data = value
        path.write_bytes(data)
        if kind == "json":
            found, problem = attempt(UnreadableFile, lambda: read_specification(path).identity)
        else:
            found, problem = attempt(ValueError, lambda: read_grid(path).grid)
        assert problem.startswith(str(path)) if problem else found

    changed = st.tuples(st.sampled_from((*RUN_JSON, "seed", "probe", "x")), JSON).map(
        lambda it: json.dumps({**RUN_JSON, it[0]: it[1]}).encode()
    )
    toml = st.tuples(st.sampled_from(("lr", "epochs", "deficit", "model", "x")), JSON).map(_toml)
    drawn = st.one_of(
        st.tuples(st.just("json"), changed | JSON.map(lambda v: json.dumps(v).encode()) | changes_of(b'{"epochs": 1}')),
        st.tuples(st.just("toml"), toml | changes_of(GRID)),
    )
    done = fuzz(drawn, check)
    publish("13 fuzzing, configuration", f"{done:,} cases: no crash, no hang, no stray exception")


def _toml(item: tuple[str, Any]) -> bytes:
    """A grid with one more value; JSON's texts, numbers and lists are TOML's too."""
    return GRID.replace(b"[grid]\n", b"[grid]\n" + f"{item[0]} = {json.dumps(item[1])}\n".encode())


def test_the_grid_that_is_changed_is_a_grid(tmp_path: Path) -> None:
    assert tomllib.loads(GRID.decode())["grid"]["lr"] == [0.1, 0.01]
    (tmp_path / "grid.toml").write_bytes(GRID)
    assert len(read_grid(tmp_path / "grid.toml").arms) == 4
    (tmp_path / "run.json").write_text(json.dumps(RUN_JSON))
    assert read_specification(tmp_path / "run.json").deficit == ("blur",)


BATCH = {"labels": [3, 7], "data": np.zeros((2, 3), np.uint8), "batch_label": "test"}
IMAGES = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28)) + bytes(2 * 28 * 28)
# target of fuzz_guided.py -> how often in full, and something good to begin with
GUIDED = {
    "windows": (100_000, b"\0blur(4):0-40"),
    "executors": (100_000, b"dask:tcp://host:8786"),
    "pickles": (100_000, pickle.dumps(BATCH, protocol=2)),
    "idx": (100_000, bytes((0, 0, 8, 1, 0, 0, 0, 2, 3, 7)) + IMAGES),
    "toml": (50_000, GRID),
    "json": (50_000, json.dumps(RUN_JSON).encode()),
    "run": (5_000, RUN),
}


@pytest.mark.skipif(find_spec("atheris") is None, reason="coverage-guided fuzzing needs atheris: pip install atheris")
@pytest.mark.parametrize("target", GUIDED)
def test_guided_by_coverage(target: str, count: Any, publish: Any, tmp_path: Path) -> None:
    full, good = GUIDED[target]
    times = count(short=500, full=full)
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "good").write_bytes(good)
    script = Path(__file__).with_name("fuzz_guided.py")
    options = ("seeds", f"-runs={times}", "-timeout=10", f"-max_len={2 * max(len(good), 200)}", "-artifact_prefix=./")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), target, *options]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = re.search(r"DONE\s+cov: (\d+)", done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]
    assert found, done.stderr[-3000:]
    publish(
        f"13 fuzzing guided by coverage, {target}", f"{times:,} cases through {found[1]} places of the code: no error"
    )
