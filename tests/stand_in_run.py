"""A run that trains nothing: the options, files, output and exit status of `fisherkit track`, in a third of a second.

Its numbers follow from the seed and the epoch before, so a run that was killed, or that branched off another, is right
only when it was handed on rightly. What it is to do is in `model_options`:

    epoch_s=0.1   seconds an epoch         every=2   epochs between checkpoints
    fail=3        exit 2 in that epoch     explode=3 exit 1, exploded
    die=3         SIGKILL to itself in that epoch, each time; die_once=3: the first time
    hold=3        wait in that epoch until the file `go` is in the folder
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from fisherkit.errors import RunRefused
from fisherkit.recording import Trajectory, to_bytes
from fisherkit.storage import atomic_write, lock

COMMAND = (sys.executable, __file__)


class InputClosedError(Exception):
    """The parent has ended."""


class StandIn:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.folder, self.arguments = arguments.out, arguments
        self.specification = json.loads(arguments.specification.read_bytes())
        self.does = self.specification["model_options"]
        self.epochs = self.specification["epochs"]
        self.rows: list[float] = []
        self.closed = threading.Event()

    def watch_input(self) -> None:
        # not sys.stdin: a thread that is inside its buffer when Python exits aborts the process
        while os.read(0, 4096):
            pass
        self.closed.set()

    def begin(self) -> None:
        own = sorted(self.folder.glob("ckpt-*.pt"), key=lambda path: int(path.name.split("-")[1]))
        branch = self.arguments.branch_from
        if own:
            self.rows = json.loads(own[-1].read_bytes())
        elif branch is not None:
            (kept,) = branch.glob(f"kept-{self.arguments.branch_epoch}-*.pt")
            self.rows = json.loads(kept.read_bytes())
        self.environment()
        print(f"{self.folder} starts: {self.epochs} epochs of 7 training images on cpu", flush=True)

    def environment(self) -> None:
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "FISHERKIT_PARENT_PIPE", "FISHERKIT_TRACK_LR", "MARK")
        seen = {name: os.environ[name] for name in names if name in os.environ}
        (self.folder / "environment.json").write_text(json.dumps({**seen, "cwd": os.getcwd(), "pid": os.getpid()}))

    def save(self, kind: str, number: int) -> None:
        data = json.dumps(self.rows).encode()
        atomic_write(self.folder / f"{kind}-{number}-{hashlib.sha256(data).hexdigest()[:16]}.pt", data)

    def publish(self, **attributes: object) -> None:
        rows = np.array(self.rows)
        run = Trajectory(
            layers=("layer",),
            parameters=np.array([1]),
            variables={"fisher_true": rows[:, None]},
            series={"epoch": np.arange(len(rows)) + 1.0, "step": np.arange(len(rows)) + 1},
            attributes={"configuration": self.specification, **attributes},
        )
        atomic_write(self.folder / "run.h5", to_bytes(run))

    def train(self) -> None:
        while len(self.rows) < self.epochs:
            if self.closed.wait(float(self.does.get("epoch_s", 0))):
                self.save("ckpt", len(self.rows))
                raise InputClosedError
            self.misbehave(len(self.rows))
            before = self.rows[-1] if self.rows else self.specification["seed"]
            self.rows.append(next_value(before, len(self.rows)))
            done = len(self.rows)
            print(f"epoch {done:3}/{self.epochs}  train 0.1  50.0%", flush=True)
            if done in self.arguments.keep_checkpoint:
                self.save("kept", done)
            if done % int(self.does.get("every", 2)) == 0:
                self.save("ckpt", done)

    def misbehave(self, epoch: int) -> None:
        if self.does.get("fail") == str(epoch):
            print("fisherkit: lr must be positive; got -1.", flush=True)
            sys.exit(2)
        if self.does.get("explode") == str(epoch):
            self.publish(exploded="loss is nan")
            sys.exit(1)
        if self.does.get("hold") == str(epoch):
            while not (self.folder / "go").exists() and not self.closed.is_set():
                time.sleep(0.02)
        mark = self.folder / "died"
        if self.does.get("die") == str(epoch) or (self.does.get("die_once") == str(epoch) and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def next_value(before: float, epoch: int) -> float:
    digest = hashlib.sha256(f"{before!r} {epoch}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48 + 0.1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--specification", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--branch-from", type=Path)
    parser.add_argument("--branch-epoch", type=int)
    parser.add_argument("--keep-checkpoint", type=int, action="append", default=[])
    run = StandIn(parser.parse_args())
    threading.Thread(target=run.watch_input, daemon=True).start()
    try:
        with lock(run.folder):
            run.begin()
            run.train()
            run.publish(finished=True)
    except RunRefused as error:
        print(f"fisherkit: {error}", flush=True)
        return 75
    except InputClosedError:
        print("Stopped", flush=True)
        return 143
    return 0


if __name__ == "__main__":
    sys.exit(main())
