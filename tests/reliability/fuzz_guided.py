"""Coverage-guided fuzzing with atheris: `python fuzz_guided.py TARGET [FOLDER] [-runs=N] [-timeout=S]`.

FOLDER holds inputs to begin with. Needs atheris (pip install atheris). An error other than the one meant for the
input ends it with a traceback.
"""

import sys
import tempfile
from pathlib import Path

import atheris

# what HDF5 spends long on would otherwise be new to the fuzzer, and little else be tried
with atheris.instrument_imports(include=["fisherkit", "tomllib"], exclude=["fisherkit.recording.isolated"]):
    from fisherkit.conditions import Conditions
    from fisherkit.errors import UnreadableFile
    from fisherkit.images import idx, pickles
    from fisherkit.images.contents import Content
    from fisherkit.images.releases import OfficialFile
    from fisherkit.recording import read
    from fisherkit.studies.execution import ExecutorChoice
    from fisherkit.studies.folder import read_specification
    from fisherkit.studies.protocols.custom import read_grid

FIELDS = ("deficits", "weight_decay", "augment", "fraction", "events")
_file = Path(tempfile.mkdtemp()) / "file"


def windows(data: bytes) -> None:
    """A text of each kind of condition."""
    text = data[1:].decode(errors="replace")
    Conditions.parse(**{FIELDS[data[0] % 5 if data else 0]: [text]})


def executors(data: bytes) -> None:
    """What follows --executor."""
    ExecutorChoice.parse(data.decode(errors="replace"))


def unpickle(data: bytes) -> None:
    """A CIFAR pickle."""
    pickles.load_data(data, steps=500)


def read_idx(data: bytes) -> None:
    """The IDX files of two labels and two images, one behind the other."""
    files = (("images", data[10:], 2), ("labels", data[:10], 2))
    contents = [Content(OfficialFile(name, n, len(d), "sha256:0"), d, Path(name)) for name, d, n in files]
    idx.decode(contents, classes=10)


def toml(data: bytes) -> None:
    """A grid file."""
    _file.write_bytes(data)
    read_grid(_file)


def json(data: bytes) -> None:
    """A specification."""
    _file.write_bytes(data)
    read_specification(_file)


def run_file(data: bytes) -> None:
    """A run file, read as users do: the HDF5 of it in another process, of which the coverage says nothing."""
    _file.write_bytes(data)
    read(_file)


TARGETS = {
    **{"windows": windows, "executors": executors, "pickles": unpickle, "idx": read_idx},
    **{"toml": toml, "json": json, "run": run_file},
}


def main() -> None:
    """Fuzz the target that the first argument names."""
    target = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        try:
            target(data)
        except (ValueError, UnreadableFile):
            return

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
