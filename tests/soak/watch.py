"""Watch threads, descriptors and memory of each process of a gateway, and say whether they grow."""

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self

import psutil

ROLES = ("admin", "delivery", "receiver-1", "receiver-2")
"""The processes of a gateway with two receivers, in the order in which they are started."""

_WARM = 60.0  # seconds of a process's life that do not count: libraries are loaded, pools filled
_LIMITS = (3, 8, 10.0)  # of the growth of the medians: threads, descriptors, MB


@dataclass(frozen=True, slots=True)
class Sample:
    """Hold what a process uses at a time: threads, descriptors, proportional set size in MB."""

    when: float
    used: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Life:
    """Hold the samples of one process."""

    role: str
    samples: list[Sample]

    @property
    def minutes(self) -> float:
        return (self.samples[-1].when - self.samples[0].when) / 60

    def thirds(self) -> list[tuple[float, float]]:
        """Give the median of each figure in the first and in the last third of the life, without its beginning."""
        first = self.samples[0].when
        kept = [one for one in self.samples if one.when - first > _WARM] or self.samples
        third = max(1, len(kept) // 3)
        columns = range(len(_LIMITS))
        return [
            (median(one.used[at] for one in kept[:third]), median(one.used[at] for one in kept[-third:]))
            for at in columns
        ]

    def grows(self) -> bool:
        return any(last - first > limit for (first, last), limit in zip(self.thirds(), _LIMITS, strict=True))


class Watch:
    """Take a sample of each process every `interval` seconds; `follow` a gateway again after each of its starts."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._supervisor: psutil.Process | None = None
        self._roles: dict[psutil.Process, str] = {}
        self._lives: dict[psutil.Process, Life] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def follow(self, pid: int) -> None:
        with self._lock:
            self._supervisor = psutil.Process(pid)
            self._roles = {self._supervisor: "supervisor"}

    def forget(self) -> None:
        """Expect each process but the supervisor to be replaced."""
        with self._lock:
            self._look()
            self._roles = {process: role if role == "supervisor" else "" for process, role in self._roles.items()}

    def process(self, role: str) -> psutil.Process | None:
        """Give the process that has a role now."""
        with self._lock:
            self._look()
            return next((process for process, has in self._roles.items() if has == role), None)

    def longest(self) -> list[Life]:
        """Give the longest life of each role."""
        with self._lock:
            lives = sorted(self._lives.values(), key=lambda life: life.minutes)
        by_role = {life.role: life for life in lives}
        return [by_role[role] for role in ("supervisor", *ROLES) if role in by_role]

    def _look(self) -> None:
        """Give the roles that nobody has to the processes that have none, the oldest first."""
        if self._supervisor is None:
            return
        try:
            children = sorted(self._supervisor.children(), key=lambda child: (child.create_time(), child.pid))
        except psutil.NoSuchProcess:
            children = []
        alive = {self._supervisor, *(child for child in children if child.is_running() and not _is_dead(child))}
        self._roles = {process: role for process, role in self._roles.items() if process in alive}
        free = [role for role in ROLES if role not in self._roles.values()]
        fresh = [child for child in children if child in alive and child not in self._roles]
        self._roles |= dict(zip(fresh, free, strict=False))

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            with self._lock:
                self._look()
                for process, role in self._roles.items():
                    with contextlib.suppress(psutil.Error, FileNotFoundError, ProcessLookupError):
                        sample = Sample(time.monotonic(), _used(process))
                        if role:
                            self._lives.setdefault(process, Life(role, [])).samples.append(sample)


def table(lives: list[Life]) -> str:
    """Show the growth of each, in Markdown."""
    lines = ["| process | minutes | threads | descriptors | memory, MB |", "|---|---|---|---|---|"]
    for life in lives:
        cells = [f"{first:.0f}, {last:.0f}" for first, last in life.thirds()]
        lines.append(f"| {life.role} | {life.minutes:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _used(process: psutil.Process) -> tuple[float, float, float]:
    memory = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    size = sum(int(line.split()[1]) for line in memory.splitlines() if line.startswith("Pss:"))
    return process.num_threads(), process.num_fds(), size / 1024
