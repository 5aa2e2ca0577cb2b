"""The process that reads HDF5 files for another one: asked on standard input, answers on standard output."""

import json
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from fisherkit.errors import UnreadableFile
from fisherkit.recording import reader, study_file
from fisherkit.recording.isolated import STARTED

_EXTRACT = {"run": reader.extract, "study": study_file.extract, "content": study_file.extract_content}
_IDLE_S = 30.0  # then it ends
# a legitimate file takes 0.1 s and 30 MB for each megabyte where nearly all of it is columns that compress to nothing
_CPU_S, _BYTES_PER_CPU_S = 2, 2**21
_MEMORY, _MEMORY_PER_BYTE = 150 * 2**20, 120


def serve() -> None:
    """Answer until nothing is asked for a while, or the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(STARTED)
    answers.flush()
    while select.select([questions], [], [], _IDLE_S)[0]:
        line = questions.readline()
        if not line:
            return
        asked = json.loads(line)
        data = questions.read(asked["size"])
        _limit(len(data))
        _answer(asked["kind"], data, answers)
        answers.flush()


def _answer(kind: str, data: bytes, answers: BinaryIO) -> None:
    try:
        found = _EXTRACT[kind](data, Path("file"))
    except UnreadableFile as error:
        refused = {"problem": error.problem, "dataset": error.dataset}
        answers.write(json.dumps(refused).encode() + b"\n")
    else:
        found.write(answers)


def _limit(size: int) -> None:
    """Processor time and memory for reading a file of that size, beyond what is used up already."""
    seconds = int(time.process_time()) + 1 + _CPU_S + size // _BYTES_PER_CPU_S
    _set(resource.RLIMIT_CPU, seconds)
    with suppress(OSError):  # /proc is Linux's; elsewhere the memory has no limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _set(resource.RLIMIT_AS, pages * resource.getpagesize() + _MEMORY + _MEMORY_PER_BYTE * size)


def _set(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
