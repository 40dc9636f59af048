"""A part of the gateway and the process that runs it."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.context import ForkProcess
from typing import Any

from gateway import signals
from gateway.dimse.scp import Scp
from gateway.errors import ConfigError, Fault
from gateway.metrics import Recorder

Part = Callable[[], AbstractContextManager[Any]]

STOP = signal.SIGUSR1  # not SIGTERM, which a service manager sends to every process at once
DRAIN = signal.SIGUSR2
FIRST_PAUSE = 0.2
_PR_SET_PDEATHSIG = 1
_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2  # glibc's default is eight for each processor, and what a thread frees stays in its arena


@dataclass(slots=True, eq=False)
class Child:
    """Hold a part of the gateway and the process that runs it; times in seconds.

    A `lasting` one is the same with every configuration. `answer` is there while it starts.
    """

    name: str
    part: Part
    rank: int
    recorder: Recorder
    lasting: bool = False
    process: ForkProcess | None = None
    answer: "connection.Connection | None" = None
    begun: float = 0.0
    pause: float = FIRST_PAUSE
    again_at: float = 0.0

    def begin(self) -> "tuple[ForkProcess, connection.Connection]":
        """Fork a process and give it, with where its answer comes."""
        answer, theirs = connection.Pipe(duplex=False)
        self.begun = time.monotonic()
        process = get_context("fork").Process(target=_run, args=(self.part, theirs, os.getpid()), name=self.name)
        process.start()
        theirs.close()
        self.process, self.answer = process, answer
        return process, answer

    def hear(self) -> Any:
        """Give what the part gives once it runs, or the ConfigError that kept it from that; once, then None."""
        answer, self.answer = self.answer, None
        if answer is None:
            return None
        with answer:
            try:
                return answer.recv()
            except EOFError:
                return ConfigError(self.name, (Fault(self.name, "its process ended while it started; see the log"),))


def _run(part: Part, answer: "connection.Connection", parent: int) -> None:
    """Be the child: run a part until told to stop, or until the parent is gone."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    came = signals.descriptor(STOP, DRAIN)
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, STOP)
    if hasattr(libc, "mallopt"):  # glibc has it, musl has no arenas
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
    if os.getppid() != parent:
        return
    try:
        with part() as given:
            answer.send(None if isinstance(given, Scp) else given)
            answer.close()
            if STOP not in signals.read(came) and isinstance(given, Scp):
                given.drain(came)
    except ConfigError as error:
        answer.send(error)
