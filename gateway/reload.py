"""Decide whether a changed configuration can be taken up while the gateway runs, and notice that it has changed."""

import os
from pathlib import Path

from gateway.app import uses_embedded
from gateway.config import Config, load
from gateway.errors import ConfigError, Fault

_FIXED = (
    "listen.host",
    "listen.port",
    "listen.tls_port",
    "listen.max_associations",
    "spool.folder",
    "embedded.folder",
    "embedded.host",
    "embedded.port",
    "log.level",
    "log.format",
)
"""What a running gateway cannot change: its ports, its folders, what all of its processes have in common."""

_NEEDS_RESTART = "cannot be changed while the gateway runs: restart it"


def fixed_faults(running: Config, wanted: Config) -> tuple[Fault, ...]:
    """Name each change that needs a restart."""
    faults = [Fault(path, _NEEDS_RESTART) for path in _FIXED if _at(running, path) != _at(wanted, path)]
    if (running.listen.tls is None) != (wanted.listen.tls is None):
        faults.append(Fault("listen.tls", f"to begin or end TLS {_NEEDS_RESTART}"))
    if _page(running) != _page(wanted):
        faults.append(Fault("admin", f"the status page's address {_NEEDS_RESTART}"))
    if uses_embedded(wanted) and not uses_embedded(running):
        faults.append(Fault("ae_titles", f"the embedded archive was not started and {_NEEDS_RESTART}"))
    return tuple(faults)


class ConfigSource:
    """Read a configuration file again, and tell when it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._before = self._stamp()

    def read(self, running: Config) -> Config:
        """Give the configuration that is to follow `running`; raises ConfigError when it cannot."""
        self._seen = self._stamp()
        wanted = load(self.path)
        if faults := fixed_faults(running, wanted):
            raise ConfigError(str(self.path), faults)
        return wanted

    def has_changed(self) -> bool:
        """Say whether it is another than was read, and rests: a file that is being written is left alone."""
        stamp = self._stamp()
        rests, self._before = stamp == self._before, stamp
        return rests and stamp != self._seen

    def _stamp(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self.path)  # noqa: PTH116 - the target of a link, which may be exchanged for another
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_ino, status.st_size)


def _page(config: Config) -> tuple[str, int] | None:
    return None if config.admin is None else (config.admin.host, config.admin.port)


def _at(config: Config, path: str) -> object:
    value: object = config
    for name in path.split("."):
        value = getattr(value, name)
    return value
