"""An observer that asks its run to stop, as a signal does."""

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
