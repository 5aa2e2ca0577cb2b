"""How tests look at the arms of a study."""

from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols import StudyOptions
from fisherkit.studies.specification import RunSpecification
from fisherkit.training import learning_rate


def asked(run=None, **more) -> StudyOptions:
    """Options of a study with one seed."""
    return StudyOptions(run or {}, **{"seeds": 1, **more})


def only(arm: PlannedArm) -> RunSpecification:
    """The run of an arm with one seed."""
    (run,) = arm.runs
    return run


def by_label(study: Study) -> dict[str, RunSpecification]:
    """The first run of each arm."""
    return {arm.label: arm.runs[0] for arm in study.arms}


def group(study: Study, name: str) -> list[PlannedArm]:
    """The arms of a group, in order."""
    return [arm for arm in study.arms if arm.group == name]


def differing(first: RunSpecification, second: RunSpecification) -> set[str]:
    """The names of the options in which two runs differ."""
    mine, theirs = first.model_dump(), second.model_dump()
    return {name for name in mine if mine[name] != theirs[name]}


def rates(run: RunSpecification) -> list[float]:
    """The learning rate of each epoch."""
    options, events = run.training(), run.conditions().events
    return [
        learning_rate(options.lr, options.schedule, epoch=epoch, epochs=run.epochs, events=events)
        for epoch in range(run.epochs)
    ]
