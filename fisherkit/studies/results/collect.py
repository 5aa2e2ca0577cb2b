"""What the runs of a study left on disk, arm by arm."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fisherkit.analysis import Arm
from fisherkit.errors import UnreadableFile
from fisherkit.recording import ArmRecord, RunRecord, StudyRecord, Trajectory, read
from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.results.ending import EndRule, end_rule
from fisherkit.studies.specification import RunSpecification

RUNS = "runs"


def collect(
    study: Study,
    out: Path,
    *,
    failures: Mapping[str, str] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> StudyRecord:
    """Read `<out>/runs/<identity>/run.h5` of every run; a run that is not there, or not whole, is kept as such.

    Args:
        failures: why runs failed, by identity; one that has finished all the same is finished.
        attributes: further attributes of the record, JSON-able, such as the command line.
    """
    rule = end_rule(study)
    known = {run.identity: _run(run, out / RUNS / run.identity, rule, failures or {}) for run in study.runs}
    return StudyRecord(
        protocol=study.protocol,
        axis=study.axis,
        arms=tuple(_arm(arm, known) for arm in study.arms),
        options=study.options,
        attributes={
            **(attributes or {}),
            "final_rule": str(rule),
            "final_epochs": rule.last,
            "final_statistic": rule.statistic,
        },
    )


def analysed_arms(record: StudyRecord) -> tuple[Arm, ...]:
    """The arms as `fisherkit.analysis` takes them: with their finished and exploded runs."""
    return tuple(analysed_arm(arm) for arm in record.arms)


def analysed_arm(arm: ArmRecord) -> Arm:
    """One arm as `fisherkit.analysis` takes it."""
    runs = {seed: run.trajectory for seed, run in sorted(arm.runs.items()) if run.trajectory is not None}
    return Arm(arm.label, arm.group, arm.value, arm.control, tuple(runs), tuple(runs.values()))


def _arm(arm: PlannedArm, known: Mapping[str, RunRecord]) -> ArmRecord:
    seeds = [run.seed for run in arm.runs]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"runs of an arm must have a seed each; those of {arm.label!r} have {seeds}.")
    runs = {run.seed: known[run.identity] for run in arm.runs}
    value = np.nan if arm.value is None else float(arm.value)
    return ArmRecord(arm.label, arm.group, value, arm.control, runs)


def _run(specification: RunSpecification, folder: Path, rule: EndRule, failures: Mapping[str, str]) -> RunRecord:
    options, identity = specification.model_dump(mode="json"), specification.identity
    failure = failures.get(identity)
    try:
        trajectory = read(folder / "run.h5")
        _check(specification, trajectory, folder / "run.h5")
    except FileNotFoundError:
        return RunRecord(identity, options, "missing" if failure is None else "failed", failure or "")
    except UnreadableFile as error:
        return RunRecord(identity, options, "failed", f"{error.path.name}: {error.problem}")
    exploded = trajectory.attributes.get("exploded")
    if exploded:  # also where it went on to its end: the accuracy of weights that are NaN is no result
        return RunRecord(identity, options, "exploded", str(exploded), trajectory)
    if trajectory.attributes.get("finished"):
        return RunRecord(identity, options, "finished", "", trajectory, rule.finals(trajectory))
    if failure is not None:
        return RunRecord(identity, options, "failed", failure)
    reached = f"{trajectory.series['epoch'][-1]:g}" if len(trajectory) else "0"
    message = f"stopped after {reached} of {specification.epochs} epochs"
    return RunRecord(identity, options, "unfinished", message)


def _check(specification: RunSpecification, trajectory: Trajectory, path: Path) -> None:
    """Refuse the file of another run."""
    try:
        recorded = RunSpecification.model_validate(trajectory.attributes.get("configuration"))
    except ValueError:
        raise UnreadableFile(path, "is not of this run: its configuration is none of a run.") from None
    differing = specification.differing_options(recorded)
    if differing:
        raise UnreadableFile(path, f"is of another run: {'; '.join(differing)}.")
