"""What `study` shows while it runs, from made-up snapshots: the screen of a terminal, plain lines elsewhere."""

import io

import click
import pytest
from click.testing import CliRunner
from fisherkit_cli import study_progress
from fisherkit_cli.study_progress import StudyProgress
from fisherkit_cli.study_screen import screen, summary_text
from rich.console import Console

from fisherkit.studies import specify
from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.execution import Ending, Origin, Slot, Snapshot, Unit, UnitOutcome, UnitProgress


def study_of(*lengths: int) -> Study:
    """An arm of two seeds for each length; the first is the control."""
    arms = [
        PlannedArm(
            label=f"blur 0-{length}" if length else "control",
            group="blur",
            value=length,
            runs=tuple(
                specify(model="linear", epochs=length + 10, seed=seed, deficit=(f"blur:0-{length}",) if length else ())
                for seed in range(2)
            ),
        )
        for length in lengths
    ]
    return Study("removal", "epoch of removal", tuple(arms), {})


def units_of(study: Study) -> list[Unit]:
    return [Unit(run.identity, f"/study/runs/{run.identity}", run.model_dump_json()) for run in study.runs]


STUDY = study_of(0, 5, 20)  # epochs: 2 x 10, 2 x 15, 2 x 30
CONTROL, CONTROL_1, EARLY, EARLY_1, LATE, LATE_1 = units_of(STUDY)
SNAPSHOT = Snapshot(  # the first run of the control was done before: it is no unit of this call
    (
        UnitProgress(CONTROL_1, "finished", 10, 0),
        UnitProgress(EARLY, "running", 7, 8, "GPU 0, node-17"),
        UnitProgress(EARLY_1, "failed", 2, 0),
        UnitProgress(LATE, "queued", 0, 30),
        UnitProgress(LATE_1, "waiting", 0, 25),
    ),
    3000.0,
)


def drawn(study: Study, snapshot: Snapshot, notices=(), *, width: int = 110, height: int = 40) -> list[str]:
    """The lines of the screen."""
    console = Console(force_terminal=True, color_system=None, width=width, height=height, file=io.StringIO())
    console.print(screen(study, snapshot, notices, height=height), end="")
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_screen():
    lines = drawn(STUDY, SNAPSHOT, ["blur 0-5, seed 1: failed: lr must be\nless \x1b[2J"])
    bare = [line.replace("━", "").replace("╸", "").split() for line in lines]
    assert [" ".join(line) for line in bare] == [
        "removal: 6 runs: 1 running, 1 queued, 1 waiting, 2 finished, 1 failed",
        "29/110 epochs about 50 min left",
        "",
        "control 20/20 2 finished",
        "blur 0-5 9/30 1 running, 1 failed",
        "blur 0-20 0/60 1 queued, 1 waiting",
        "",
        "blur 0-5, seed 0 epoch 7/15 GPU 0, node-17",
        "",
        r"blur 0-5, seed 1: failed: lr must be less \x1b[2J",
    ]
    assert lines[3].count("━") == 24
    assert lines[4].count("━") == 7  # 9/30 of 24
    assert lines[5].count("━") == 0


def test_a_screen_that_is_too_small_shows_the_arms_that_move():
    study = study_of(*range(0, 60, 2))
    units = units_of(study)
    states = ["finished"] * 8 + ["running"] * 8 + ["waiting"] * (len(units) - 16)
    progress = [UnitProgress(unit, state, 0, 1, "slot") for unit, state in zip(units, states, strict=True)]
    for height in (15, 16, 20, 24, 50):
        for width in (40, 80):
            lines = drawn(study, Snapshot(tuple(progress), None), ["one", "two"], width=width, height=height)
            assert len(lines) <= height
            assert max(map(len, lines)) <= width
            assert lines[3].startswith("blur 0-8 " if height < 40 else "control")
    lines = drawn(study, Snapshot(tuple(progress), None), height=20)
    assert "and 22 more: 36 waiting, 8 finished" in lines  # of 30 arms
    assert "and 3 more" in lines  # of 8 runs


def test_a_summary_in_one_line():
    text = "removal: 1 running, 1 queued, 1 waiting, 2 finished, 1 failed; 29 of 110 epochs; about 50 min left"
    assert summary_text(STUDY, SNAPSHOT) == text
    assert summary_text(STUDY, Snapshot((), None)) == "removal: 6 finished; 110 of 110 epochs"


def happen(progress: StudyProgress) -> None:
    """A study goes by."""
    with progress:
        progress.notice("arms 5 and 6 are one")
        progress.began([CONTROL_1, EARLY, EARLY_1, LATE, LATE_1], [UnitOutcome(CONTROL_1, Ending.FINISHED)])
        progress.started(EARLY, origin=None, slot=Slot("GPU 0"), attempt=1)
        progress.started(EARLY_1, origin=None, slot=Slot("GPU 1"), attempt=1)
        progress.started(LATE, origin=Origin(CONTROL.folder, 4), slot=Slot("cluster"), attempt=1)
        progress.looked(SNAPSHOT)
        progress.ended(UnitOutcome(EARLY_1, Ending.FAILED, 1, "fisherkit: lr must be \x1b[2J", "more"))
        progress.retried(EARLY, reason="killed by SIGKILL", attempts_left=1)
        progress.started(EARLY, origin=None, slot=Slot("GPU 1"), attempt=2)
        progress.looked(SNAPSHOT)
        progress.ended(UnitOutcome(EARLY, Ending.FINISHED, 2))
        progress.stopping(2, 1)
        progress.ended(UnitOutcome(LATE, Ending.EXPLODED, 1))


PLAIN = r"""note: arms 5 and 6 are one
removal: 3 arms, 6 runs, 2 of them done before
blur 0-5, seed 0: starts, GPU 0
blur 0-5, seed 1: starts, GPU 1
blur 0-5, seed 1: failed: lr must be \x1b[2J; see FOLDER/log.txt
blur 0-5, seed 0: killed by SIGKILL; it is tried again (1 more attempt)
blur 0-5, seed 0: starts again, attempt 2, GPU 1
blur 0-5, seed 0: finished
stopping: waiting for 1 running to write a checkpoint; the same command goes on from there
blur 0-20, seed 0: starts, cluster, from epoch 4 of control, seed 0
blur 0-20, seed 0: exploded; see LATE/log.txt
"""


def test_without_a_terminal_there_is_a_line_for_each_event():
    result = CliRunner().invoke(click.Command("show", callback=lambda: happen(StudyProgress(STUDY))))
    assert result.exception is None
    assert result.output == PLAIN.replace("FOLDER", EARLY_1.folder).replace("LATE", LATE.folder)


@pytest.mark.parametrize(("seconds_a_look", "summaries"), [(1.0, 0), (35.0, 1), (70.0, 2)])
def test_without_a_terminal_there_is_a_summary_once_a_minute(monkeypatch, seconds_a_look: float, summaries: int):
    now = 0.0

    class Slow(StudyProgress):
        def looked(self, snapshot):
            nonlocal now
            now += seconds_a_look
            super().looked(snapshot)

    monkeypatch.setattr(study_progress.time, "monotonic", lambda: now)
    result = CliRunner().invoke(click.Command("show", callback=lambda: happen(Slow(STUDY))))
    assert result.output.count("29 of 110 epochs") == summaries


def test_a_terminal_shows_only_the_screen_and_keeps_what_went_wrong_in_sight():
    console = Console(force_terminal=True, color_system=None, width=100, height=40, file=io.StringIO())
    happen(StudyProgress(STUDY, console))
    last = console.file.getvalue().rpartition("removal: 6 runs")[2]
    assert "note: arms 5 and 6 are one" in last
    assert r"blur 0-5, seed 1: failed: lr must be \x1b[2J" in last
    assert "blur 0-20, seed 0: exploded" in last
    assert "log.txt" not in last
    assert "GPU 0, node-17" in last
    assert "starts" not in console.file.getvalue()
