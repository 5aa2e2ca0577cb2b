"""The process that reads HDF5 files for another one: asked on standard input, answers on standard output."""

import json
import resource
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from fisherkit.errors import UnreadableFile
from fisherkit.recording import reader, study_file
from fisherkit.recording.isolated import STARTED

_EXTRACT = {"run": reader.extract, "study": study_file.extract, "content": study_file.extract_content}
_IDLE_S = 30.0  # then it ends
# a legitimate file takes 0.1 s and 30 MB for each megabyte where nearly all of it is columns that compress to nothing
_CPU_S, _BYTES_PER_CPU_S = 1.5, 2**21
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
        signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(kind: str, data: bytes, answers: BinaryIO) -> None:
    try:
        found = _EXTRACT[kind](data, Path("file"))
    except UnreadableFile as error:
        refused = {"problem": error.problem, "dataset": error.dataset}
        answers.write(json.dumps(refused).encode() + b"\n")
    else:
        found.write(answers)


def _limit(size: int) -> None:
    """Processor time and memory for reading a file of that size, beyond what it has used until now."""
    signal.setitimer(signal.ITIMER_PROF, _CPU_S + size / _BYTES_PER_CPU_S)  # whose signal ends the process
    with suppress(OSError):  # /proc is Linux's; elsewhere the memory has no limit
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        most = pages * resource.getpagesize() + _MEMORY + _MEMORY_PER_BYTE * size
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
