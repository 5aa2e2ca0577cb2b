"""The stand-in for `track`, with a line in the log when it has finished; and the driver that starts it.

python counted_run.py --specification ...      the run
python counted_run.py FOLDER EXECUTOR          the driver of `study_driver`
"""

import sys

import stand_in_run
import study_driver

COMMAND = (sys.executable, __file__)
FINISHED = "finished, and published"


def main() -> int:
    if not sys.argv[1].startswith("--"):
        stand_in_run.COMMAND = COMMAND
        study_driver.main()
        return 0
    status = stand_in_run.main()
    if status == 0:
        print(FINISHED, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
