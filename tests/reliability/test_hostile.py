"""The hostile corpus through the command line: a clear line each, in little time and memory, and nothing done."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reliability import hostile_process
from reliability.corpus import Case

SECONDS, BYTES = 2.0, 200 * 10**6
REFUSED = (2, 64, 65)
PARALLEL_STEP = 4  # the short form takes every fourth case


def test_the_hostile_corpus(count: Any, publish: Any, tmp_path: Path) -> None:
    """Full: all cases, each in a process of its own. Short: every fourth, a hundred to a process."""
    step, batch = count(short=PARALLEL_STEP, full=1), count(short=100, full=1)
    outcomes = _outcomes(tmp_path, batch=batch, step=step)
    cases = {case.name: case for case in hostile_process.all_cases()[::step]}
    assert len(cases) == len(outcomes) == len({each["name"] for each in outcomes})
    problems = [f"{each['name']}: {text}" for each in outcomes for text in _problems(cases[each["name"]], each)]
    refused = [each for each in outcomes if each["status"] in REFUSED]
    publish(
        "12 hostile corpus",
        f"{len(outcomes)} inputs: {len(refused)} refused, {len(outcomes) - len(refused)} used harmlessly; "
        f"{len(problems)} surprises; at most {max(each['cpu_s'] for each in outcomes):.1f} s and "
        f"{max(max(each['memory'], each['memory_apart']) for each in outcomes) / 1e6:.0f} MB beyond the start",
    )
    assert not problems, "\n".join(problems)


def _outcomes(folder: Path, *, batch: int, step: int) -> list[dict[str, Any]]:
    command = [sys.executable, hostile_process.__file__, str(folder), str(batch), "0", str(step)]
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def _problems(case: Case, outcome: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    said, found = outcome["output"], []
    if outcome["stray"]:
        return [outcome["stray"]]
    if outcome["status"] != case.status:
        found.append(f"exit status {outcome['status']}, not {case.status}: {said[:300]!r}")
    if "Traceback" in said or re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", said):
        found.append(f"prints a traceback or control characters: {said[:300]!r}")
    if case.status != 0:
        found += _message_problems(case, said)
        found += [f"did something: {deed}" for deed in outcome["deeds"] if not re.search(case.may, deed)]
    if any("secret" in deed or "code" in deed for deed in outcome["deeds"]):
        found.append(f"did something: {outcome['deeds']}")
    if outcome["cpu_s"] > SECONDS:
        found.append(f"took {outcome['cpu_s']:.1f} s")
    for name in ("memory", "memory_apart"):
        if outcome[name] > BYTES:
            found.append(f"{name}: took {outcome[name] / 1e6:.0f} MB")
    return found


def _message_problems(case: Case, said: str) -> list[str]:
    lines = [line for line in said.splitlines() if line and not line.startswith(("Usage:", "Try ", "note:"))]
    found = []
    if len(lines) != 1:
        found.append(f"says {len(lines)} lines: {said[:400]!r}")
    if not re.search(case.says, said):
        found.append(f"does not say {case.says!r}: {said[:400]!r}")
    if case.file not in said:
        found.append(f"does not name {case.file}: {said[:400]!r}")
    if len(said) > 2_000:
        found.append(f"says {len(said)} letters: {said[:200]!r}")
    return found


@pytest.fixture(scope="module")
def names() -> list[str]:
    return [case.name for case in hostile_process.all_cases()]


def test_every_case_has_a_name_of_its_own_and_there_are_enough(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice
    assert len(names) >= 300
