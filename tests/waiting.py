"""Waiting for what another process does, without a guess how long that takes on a busy machine."""

import os
import time
from collections.abc import Callable

PATIENCE = 600  # seconds: nothing that works takes as long, however busy the machine is


def until(happened: Callable[[], object], process=None, every: float = 0.02) -> None:
    "Wait until something has happened; an error where the process ends before, or after `PATIENCE` seconds."
    end = time.monotonic() + PATIENCE
    while not happened():
        ended = process is not None and process.poll() is not None
        if ended and not happened():
            raise AssertionError(f"the process ended before with code {process.returncode}")
        assert time.monotonic() < end, f"it did not happen in {PATIENCE} seconds"
        time.sleep(every)


def group_is_gone(group: int) -> bool:
    "Has every process of a group ended?"
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
