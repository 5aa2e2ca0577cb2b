"""docs/studies.md: what one can type from it works."""

import re
import shlex
from pathlib import Path

import pytest
from fisherkit_cli.study import study
from planned import asked

from fisherkit.studies.protocols import custom

TEXT = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()
COMMANDS = re.findall(r"^    fisherkit study (.*?)(?: +#.*)?$", TEXT, re.MULTILINE)


def block(language: str) -> str:
    """The only block of the page in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").touch()
    name, *arguments = shlex.split(line)
    study.commands[name].make_context(name, arguments)


def test_every_study_has_a_section_that_names_its_own_options():
    assert {line.split()[0] for line in COMMANDS} == set(study.commands)
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    of_every_study = next(section for section in sections if section.startswith("Options of every study"))
    shared = set.intersection(
        *({option for p in command.params for option in p.opts} for command in study.commands.values())
    )
    for name, command in study.commands.items():
        section = next(section for section in sections if section.startswith(f"{name}\n"))
        own = [
            option for p in command.params if type(p).__name__ == "Option" for option in p.opts if option not in shared
        ]
        assert [option for option in own if option not in section and not is_of_track(option)] == [], name
    for option in ("--arms", "--seeds", "--time-scale", "--clean-epochs", "--dry-run", "--out", "--name", "--executor"):
        assert option in of_every_study


def is_of_track(option: str) -> bool:
    """Whether it is left out of another study only because that one sets it itself."""
    return option in ("--deficit", "--fraction")


def test_the_grid_file_is_one(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(block("toml"))
    made = custom(asked(), path)
    assert (len(made.arms), [arm.control for arm in made.arms].count(True)) == (6, 2)


def test_the_python_is_right():
    names: dict[str, object] = {}
    exec(block("python"), names)
    assert [arm.label for arm in names["study"].arms][:2] == ["control", "blur until epoch 2"]
