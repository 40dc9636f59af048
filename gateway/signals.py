"""Wait for a signal without a lock that its handler could meet."""

import os
import signal


def descriptor(*numbers: int) -> int:
    """Give a descriptor that can be read once one of these signals has come; nothing else happens at them.

    The interpreter's C handler writes to it. A Python handler runs too late when the signal comes just before the
    main thread falls asleep, and could meet it inside an Event's lock.
    """
    came, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return came


def read(came: int) -> set[int]:
    """Take the numbers of the signals that have come off such a descriptor; waits for one."""
    return set(os.read(came, 64))
