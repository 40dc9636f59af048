"""Say whether the gateway can do its work, and what keeps it from that."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway import metrics
from gateway.admin.parts import Parts
from gateway.admin.watch import Probe
from gateway.errors import GatewayError, SignInRefused


@dataclass(frozen=True, slots=True)
class Check:
    """State one finding: `red` makes the gateway not ready, a `warning` does not."""

    name: str
    state: Literal["ok", "warning", "red"]
    detail: str


def checks(parts: Parts, probes: dict[str, Probe]) -> list[Check]:
    """Look at listener, processes, spool and archives."""
    return [*_processes(parts), _spool(parts), *(_archive(name, probes.get(name)) for name in parts.archives)]


def is_ready(found: list[Check]) -> bool:
    """Say whether nothing is red."""
    return all(check.state != "red" for check in found)


def _processes(parts: Parts) -> Iterator[Check]:
    totals = parts.metrics.total()
    listening = int(sum(value for _, value in metrics.values(totals, metrics.LISTENING)))
    if listening:
        yield Check("listener", "ok", f"processes that accept associations: {listening}")
    else:
        yield Check("listener", "red", "no process accepts associations; see the log")
    for (name,), up in sorted(metrics.values(totals, metrics.PROCESS_UP)):
        if not up:
            yield Check(f"process {name}", "red", "it ended and waits to be started again; see the log")


def _spool(parts: Parts) -> Check:
    try:
        parts.outbox.check_room("")
    except GatewayError as error:
        return Check("spool", "red", str(error))
    return Check("spool", "ok", "takes instances")


def _archive(name: str, probe: Probe | None) -> Check:
    title = f"archive {name}"
    if probe is None:
        return Check(title, "ok", "not asked yet")
    if isinstance(probe.error, SignInRefused):
        return Check(title, "red", f"{probe.error.problem}: it does not let the gateway in; see archives.{name}.auth")
    if probe.error is not None:
        # no reason to keep peers away: what is acknowledged when spooled is taken all the same
        return Check(title, "warning", probe.error.problem)
    return Check(title, "ok", f"answers in {probe.seconds * 1000:.0f} ms")
