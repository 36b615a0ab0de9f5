"""`ci.benchmark` handles signals for its whole process, and ignores them once it is cancelled: not so pytest's."""

import signal

import pytest

from ci.benchmark import CANCELS


@pytest.fixture(autouse=True)
def signals_as_before():
    """Children of later tests would inherit signals that are ignored."""
    handlers = {number: signal.getsignal(number) for number in CANCELS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
