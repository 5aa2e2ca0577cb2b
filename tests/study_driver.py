"""The driver of a study as a process of its own, to be killed: `python study_driver.py FOLDER EXECUTOR`.

It runs the units pickled in FOLDER/units, by the stand-in for `track`, and writes how they ended (ending, attempts,
text) to FOLDER/endings.json.
"""

import json
import pickle
import sys
from pathlib import Path

import stand_in_run

from fisherkit.studies.execution import ExecutorChoice, execute, open_workplace


def main() -> None:
    folder = Path(sys.argv[1])
    units = pickle.loads((folder / "units").read_bytes())
    with open_workplace(ExecutorChoice.parse(sys.argv[2]), device="cpu", threads=1) as place:
        execution = execute(units, place.executor, slots=place.slots, folder=folder, command=stand_in_run.COMMAND)
    endings = {
        name: [outcome.ending.value, outcome.attempts, outcome.text] for name, outcome in execution.outcomes.items()
    }
    (folder / "endings.json").write_text(json.dumps(endings))


if __name__ == "__main__":
    main()
