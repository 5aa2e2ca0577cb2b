"""The first signal asks, the second ends; what was there before is put back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from fisherkit.studies.signals import StopRequest, stop_on_signals

BOTH = (signal.SIGINT, signal.SIGTERM)
DEADLINE_S = 300.0


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_the_handlers_come_back(number: signal.Signals):
    before = [signal.getsignal(each) for each in BOTH]
    with stop_on_signals() as request:
        assert request.signal is None
        os.kill(os.getpid(), number)
        assert request.signal == number
    assert [signal.getsignal(each) for each in BOTH] == before


def test_handlers_come_back_after_an_error():
    before = [signal.getsignal(each) for each in BOTH]
    with pytest.raises(KeyError), stop_on_signals():
        raise KeyError
    assert [signal.getsignal(each) for each in BOTH] == before


def test_a_handler_that_is_not_pythons_becomes_the_default(monkeypatch):
    real = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: real(number, handler) and None)
    with stop_on_signals():
        pass
    found = [signal.getsignal(each) for each in BOTH]
    real(signal.SIGINT, signal.default_int_handler)
    assert found == [signal.SIG_DFL, signal.SIG_DFL]


def test_outside_the_main_thread_nothing_is_caught():
    found: list[StopRequest] = []

    def run() -> None:
        with stop_on_signals() as request:
            found.append(request)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [StopRequest(None)]


def python(code: str, *, ignoring: tuple[int, ...] = ()) -> subprocess.Popen:
    """A process in which `say` prints; its standard input and output are pipes."""
    ignore = "".join(f"signal.signal({number}, signal.SIG_IGN);" for number in ignoring)
    start = f"import os, signal, sys, time; {ignore} from functools import partial; say = partial(print, flush=True)\n"
    start += "from fisherkit.studies.signals import stop_on_signals, stop_with_parent\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WAITING = """
with stop_on_signals() as request:
    say("ready")
    while request.signal is None:
        time.sleep(0.01)
    say(request.signal)
    time.sleep(1000)
"""


@pytest.mark.parametrize(("first", "second"), [BOTH, BOTH[::-1], BOTH[:1] * 2], ids=["INT TERM", "TERM INT", "INT INT"])
def test_a_second_signal_of_either_kind_ends_a_process_that_was_started_ignoring_both(first: int, second: int):
    with python(WAITING, ignoring=BOTH) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        assert process.stdout.readline() == f"{int(first)}\n"
        process.send_signal(second)
        assert process.wait(DEADLINE_S) == -second


AT_ONCE = """
with stop_on_signals() as request:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    time.sleep(1000)
"""


def test_two_signals_that_arrive_together_end_a_process_without_a_word():
    with python(AT_ONCE) as process:
        assert process.wait(DEADLINE_S) in (-signal.SIGINT, -signal.SIGTERM)
        assert process.stderr.read() == ""


PARENT = """
stop_with_parent()
with stop_on_signals() as request:
    say("ready")
    while request.signal is None:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)  # a batch system's, a moment later
    say(request.signal)
"""


def test_the_death_of_the_parent_and_a_signal_with_it_are_one_request():
    with python(PARENT) as process:
        assert process.stdout.readline() == "ready\n"
        process.stdin.close()
        assert process.stdout.readline() == f"{int(signal.SIGTERM)}\n"
        assert process.wait(DEADLINE_S) == 0, process.stderr.read()


def test_without_a_run_in_progress_the_death_of_the_parent_ends_the_process():
    with python("stop_with_parent(); say('ready'); time.sleep(1000)") as process:
        assert process.stdout.readline() == "ready\n"
        process.stdin.close()
        assert process.wait(DEADLINE_S) == -signal.SIGTERM
