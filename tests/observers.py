"""Observers of runs: one asks its run to stop, as a signal does; one keeps the notices."""

import os
import signal

from fisherkit.studies import Observer


class StopsAfter(Observer):
    """Asks the run to stop after some optimiser steps of this session."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def stepped(self, run, step) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


class Notices(Observer):
    """Keeps them."""

    def __init__(self) -> None:
        self.texts = []

    def notice(self, text: str) -> None:
        self.texts.append(text)
