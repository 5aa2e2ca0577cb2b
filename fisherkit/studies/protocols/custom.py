"""Custom: a grid over any option of a run, from a TOML file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from fisherkit.studies.arms import PlannedArm, Study
from fisherkit.studies.protocols.base import StudyOptions, for_each_seed, given_options, scaled_run
from fisherkit.studies.protocols.settings import LENGTHS, Setting, explained, for_specify, read_setting, shown
from fisherkit.studies.specification import RunSpecification, specify
from fisherkit.toml_file import read_toml

MOST_ARMS = 200
TABLES = ("run", "grid", "control")
# the runs of an arm differ in the seed; images lie, and memory is, where they are
NOT_IN_A_GRID = ("seed", "data_dir", "max_memory")


@dataclass(frozen=True)
class GridFile:
    """What the file says: settings of every run, those of each arm of the grid, and which arms are controls."""

    run: Mapping[str, Setting]
    grid: Mapping[str, tuple[Setting, ...]]
    control: Mapping[str, Setting]

    @property
    def arms(self) -> list[dict[str, Setting]]:
        """Every combination; the last option of the grid changes fastest."""
        return [dict(zip(self.grid, settings, strict=True)) for settings in product(*self.grid.values())]


def custom(options: StudyOptions, path: Path) -> Study:
    """One arm for every combination of the values in the table `grid` of a TOML file.

        [run]                             # of every run: options of `track`, named as in its --config file
        model = "allcnn"
        epochs = 160                      # or clean_epochs, after the last deficit ends
        [grid]                            # a list of values for each option; "" leaves the option out
        lr = [0.1, 0.01]
        deficit = ["", "blur:0-40", ["blur:0-20", "flip:20-40"]]
        [control]                         # optional: arms with these values are what the others are compared with
        deficit = ""

    `device` and `threads` are not the file's. Options of `options.run` (of the command line) take precedence over
    `run`; one that is in the grid is refused. All epochs of the file, its lengths, windows, events and decay, are
    scaled by `time_scale`; labels have them as in the file. An arm is compared with the control that has the same
    values elsewhere. Of arms that are the same runs one is kept: `options["notes"]` of the study says so.

    Raises:
        ValueError: The file is not TOML, or a key, a type or a value of it is wrong: the message names file and key.
    """
    if options.arms is not None:
        raise ValueError("arms must be left out here, for the file has them in its table grid.")
    file = read_grid(path)
    given = given_options({**options.run, "clean_epochs": options.clean_epochs})
    names = {"model_option" if name == "model_options" else name for name in given}
    both = [name for name in file.grid if name in names or (name in LENGTHS and "clean_epochs" in given)]
    if both:
        raise ValueError(f"{both[0]} must not be given beside {path}, for its grid has it.")
    notes: list[str] = []
    arms = _distinct([_arm(options, file, settings, given, path) for settings in file.arms], notes)
    grid = {name: [shown(name, each) for each in settings] for name, settings in file.grid.items()}
    control = {name: shown(name, each) for name, each in file.control.items()}
    asked = options.record(file=str(path), grid=grid, control=control, notes=notes)
    return Study("custom", "arm", arms, asked)


def _distinct(arms: Sequence[PlannedArm], notes: list[str]) -> tuple[PlannedArm, ...]:
    """Of arms that are the same runs the first, or the control."""
    kept: dict[str, PlannedArm] = {}
    for arm in arms:
        identity = arm.runs[0].identity
        first = kept.setdefault(identity, arm)
        if first is not arm:
            kept[identity], left_out = (arm, first) if arm.control and not first.control else (first, arm)
            notes.append(f"{left_out.label} is the same run as {kept[identity].label}; it is left out.")
    return tuple(kept.values())


def read_grid(path: Path) -> GridFile:
    """The file, its keys and types checked.

    Raises:
        ValueError: The file is not TOML, or a key, a type or a value of it is wrong: the message names file and key.
    """
    tables = read_toml(path)
    for name, table in tables.items():
        if name not in TABLES or not isinstance(table, dict):
            raise ValueError(
                f"{path} must hold the tables [{'], ['.join(TABLES)}] and nothing beside them; got {name!r}. "
                "Options of all runs belong into [run]."
            )
    run = {name: read_setting(f"{path}: [run] {name}", name, value) for name, value in tables.get("run", {}).items()}
    grid = {name: _values(path, name, values) for name, values in tables.get("grid", {}).items()}
    if not grid:
        raise ValueError(
            f"{path} must have a table [grid] with at least one option, such as lr = [0.1, 0.01]; got none."
        )
    twice = sorted(set(run) & set(grid))
    if twice:
        raise ValueError(f"{path}: {twice[0]} must be in [run] or in [grid]; got it in both.")
    count = math.prod(map(len, grid.values()))
    if count > MOST_ARMS:
        raise ValueError(f"{path}: [grid] must make at most {MOST_ARMS} arms; its values make {count}.")
    return GridFile(run, grid, _control(path, tables.get("control", {}), grid))


def _values(path: Path, name: str, values: Any) -> tuple[Setting, ...]:
    """The values of one option of the grid, each once."""
    where = f"{path}: [grid] {name}"
    if name in NOT_IN_A_GRID:
        raise ValueError(f"{where} must not be in a grid. Seeds are given with --seeds; others belong into [run].")
    if not isinstance(values, list) or not values:
        raise ValueError(f"{where} must be a list of at least one value; got {values!r}.")
    if len(values) > MOST_ARMS:
        raise ValueError(f"{where} must have at most {MOST_ARMS} values, as a grid has at most {MOST_ARMS} arms.")
    settings = tuple(read_setting(where, name, value) for value in values)
    repeated = [shown(name, setting) for k, setting in enumerate(settings) if setting in settings[:k]]
    if repeated:
        raise ValueError(f"{where} must have each value once; got {repeated[0]} twice.")
    return settings


def _control(path: Path, table: Mapping[str, Any], grid: Mapping[str, tuple[Setting, ...]]) -> dict[str, Setting]:
    """The values that make an arm a control; each is one of the grid's."""
    chosen = {}
    for name, value in table.items():
        where = f"{path}: [control] {name}"
        if name not in grid:
            raise ValueError(f"{where} must be an option of the grid ({', '.join(grid)}).")
        chosen[name] = read_setting(where, name, value)
        if chosen[name] not in grid[name]:
            values = ", ".join(shown(name, each) for each in grid[name])
            raise ValueError(f"{where} must be one of the grid's values {values}; got {shown(name, chosen[name])}.")
    return chosen


def _arm(
    options: StudyOptions, file: GridFile, settings: Mapping[str, Setting], given: Mapping[str, Any], path: Path
) -> PlannedArm:
    """The arm of one combination; its label and its group are made of what differs."""
    texts = {name: f"{name}={shown(name, setting)}" for name, setting in settings.items()}
    label = ", ".join(texts.values())
    main = bool(file.control) and all(settings[name] == value for name, value in file.control.items())
    varied = list(file.control) or list(file.grid)[-1:]
    rest = [text for name, text in texts.items() if name not in varied]
    group = ", ".join(["control" if main else " x ".join(varied), *rest])
    try:
        runs = _runs(options, {**for_specify({**file.run, **settings}), **given}, given)
    except ValueError as error:
        raise ValueError(f"{path}: arm {label}: {explained(error)}") from error
    return PlannedArm(label, group, None, runs, control=main)


def _runs(options: StudyOptions, choices: dict[str, Any], given: Mapping[str, Any]) -> tuple[RunSpecification, ...]:
    """One for each seed; `clean_epochs` that are given take the place of either length of the file."""
    lengths = {name: choices.pop(name) for name in LENGTHS if name in choices}
    if "clean_epochs" in given:
        lengths = {"clean_epochs": given["clean_epochs"]}
    if len(lengths) != 1:
        raise ValueError(
            f"epochs or clean_epochs must be in [run] or [grid], one of them; got {list(lengths) or 'none'}."
        )
    ((name, length),) = lengths.items()
    run = scaled_run(options, choices)
    epochs = specify(**{name: options.epochs(length)}, **run).epochs
    return for_each_seed(options, run, epochs=epochs)
