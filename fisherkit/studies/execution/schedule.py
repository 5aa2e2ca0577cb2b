"""Which run comes next: pure functions of what has ended and which checkpoints are there."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from fisherkit.studies.execution.unit import Origin, Unit

Kept = Callable[[Path], Collection[int]]  # a run's folder -> the epochs of which it holds a kept checkpoint


def check_units(units: Sequence[Unit]) -> None:
    """Refuse units that could never all run.

    Raises:
        ValueError: a folder is not absolute and named after the identity; two have one identity; one is to branch off
            an epoch that its parent does not keep; or they branch off each other in a circle.
    """
    for unit in units:
        if not Path(unit.folder).is_absolute() or Path(unit.folder).name != unit.identity:
            raise ValueError(f"folder must be absolute and end in the identity {unit.identity!r}; got {unit.folder!r}.")
    by_identity = {unit.identity: unit for unit in units}
    if len(by_identity) < len(units):
        raise ValueError("units must have different identities; some occur twice.")
    for unit in units:
        for identity, epoch in unit.parents:
            parent = by_identity.get(identity)
            if parent is not None and epoch not in parent.keep:
                raise ValueError(
                    f"parents of {unit.identity} must be kept epochs; got epoch {epoch} of {identity}, "
                    f"which keeps {', '.join(map(str, parent.keep)) or 'none'}."
                )
    _check_order(by_identity)


def _check_order(units: Mapping[str, Unit]) -> None:
    left = {name: {parent for parent, _ in unit.parents if parent in units} for name, unit in units.items()}
    while left:
        free = {name for name, parents in left.items() if not parents & left.keys()}
        if not free:
            raise ValueError(f"units must not branch off each other in a circle; got {', '.join(sorted(left))}.")
        left = {name: parents for name, parents in left.items() if name not in free}


def by_urgency(units: Sequence[Unit]) -> tuple[Unit, ...]:
    """The units in the order in which to start them, those first on which the most epochs of others wait.

    So a slot is idle for want of a checkpoint only when there is nothing else to do.
    """
    children: dict[str, list[Unit]] = {unit.identity: [] for unit in units}
    for unit in units:
        if unit.parents and unit.parents[0][0] in children:
            children[unit.parents[0][0]].append(unit)

    def waiting(unit: Unit) -> int:
        """Epochs of all that descend from it."""
        return sum(child.epochs - child.parents[0][1] + waiting(child) for child in children[unit.identity])

    return tuple(sorted(units, key=lambda unit: -waiting(unit)))


def startable(
    waiting: Iterable[Unit], *, coming: Collection[str], kept: Kept, begun: Callable[[Unit], bool]
) -> list[tuple[Unit, Origin | None]]:
    """The waiting units that can start now, in the order given, and where.

    A unit that has begun goes on from its own checkpoint. Otherwise it takes the first of its parents whose checkpoint
    is there, waits for one that is still `coming` (waiting itself, or running), and passes over one that has ended
    without; without any parent left it starts from scratch.
    """
    ready: list[tuple[Unit, Origin | None]] = []
    for unit in waiting:
        if begun(unit):
            ready.append((unit, None))
            continue
        for identity, epoch in unit.parents:
            folder = unit.folder_of(identity)
            if epoch in kept(folder):
                ready.append((unit, Origin(str(folder), epoch)))
                break
            if identity in coming:
                break
        else:
            ready.append((unit, None))
    return ready
