"""Start what the gateway is measured against, and what stands behind it; each is a process of its own."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import processes
from bench.load import Target
from bench.stow_sink import Counter
from bench.usage import Usage
from gateway_process import GatewayProcess
from orthanc import Orthanc

NODELAY = {"TCP_NODELAY": "1"}
"""DCMTK's switch for Nagle's algorithm, in its own programs and in Orthanc."""

_LUA = """
function OnStableStudy(study, tags, metadata)
    RestApiPost('/dicom-web/servers/archive/stow', '{"Resources" : ["' .. study .. '"]}')
end
"""


@dataclass(frozen=True)
class Peer:
    """Hold a running receiver: where it listens and what it uses."""

    target: Target
    usage: Usage


@contextmanager
def gateway(
    folder: Path, url: str = "http://127.0.0.1:9/nobody", profile: str = "standard", **sections: Any
) -> Iterator[Peer]:
    """Run the gateway as shipped; without a URL its archive is down and all stays in the outbox."""
    listen = {"max_associations": 250, "max_associations_per_peer": 250, **sections.pop("listen", {})}
    process = GatewayProcess(
        Path(mkdtemp(prefix="gateway-", dir=folder)),
        listen=listen,
        archives={"archive": {"url": url, "profile": profile}},
        ae_titles={"GATEWAY": {"archive": "archive", "acknowledge": "spooled"}},
        unknown_peers="accept",
        **sections,
    )
    with process:
        yield Peer(Target(process.port, process.title), Usage(process.pid))


@contextmanager
def storescp(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Peer]:
    """Run DCMTK's receiver; it forks, for otherwise it serves one association at a time."""
    made, port = Path(mkdtemp(prefix="storescp-", dir=folder)), processes.free_port()
    command = ["storescp", "--fork", "-od", made, str(port)]
    with _server(command, made, port, environment) as peer:
        yield peer


@contextmanager
def stock(folder: Path, *options: str, url: str = "") -> Iterator[Peer]:
    """Run stock pynetdicom: it writes files, or posts to `url`."""
    made, port = Path(mkdtemp(prefix="stock-", dir=folder)), processes.free_port()
    how = ["--url", url] if url else ["--folder", made]
    with _server([*_python("stock_store"), str(port), *how, *options], made, port) as peer:
        yield peer


@contextmanager
def null_receiver(folder: Path) -> Iterator[Peer]:
    """Run the receiver that keeps nothing."""
    port = processes.free_port()
    with _server([*_python("null_receiver"), str(port)], folder, port) as peer:
        yield peer


@contextmanager
def orthanc(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Peer]:
    """Run Orthanc as it is installed: it syncs its files."""
    with Orthanc(folder, environment=environment, SyncStorageArea=True) as process:
        yield Peer(Target(process.port, process.title), Usage(process.pid))


@contextmanager
def orthanc_on_stable(folder: Path, url: str) -> Iterator[Peer]:
    """Run Orthanc that forwards each study with its plug-in one second after the study's last instance."""
    script = folder / "forward.lua"
    script.write_text(_LUA)
    with _forwarding(folder, url, StableAge=1, LuaScripts=[str(script)]) as process:
        yield Peer(Target(process.port, process.title), Usage(process.pid))


@contextmanager
def orthanc_polled(folder: Path, url: str) -> Iterator[Peer]:
    """Run Orthanc and a poller that forwards with its plug-in, without Nagle's delay."""
    with _forwarding(folder, url, environment=NODELAY) as process:
        command = [*_python("poller"), process.root]
        with processes.running(command, folder / "poller.log", lambda: True) as poller:
            yield Peer(Target(process.port, process.title), Usage(process.pid, poller.pid))


def _forwarding(folder: Path, url: str, environment: Mapping[str, str] | None = None, **settings: Any) -> Orthanc:
    web = {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False}
    forwarding = {"DicomWeb": web | {"Servers": {"archive": [f"{url}/"]}}, "JobsHistorySize": 10, **settings}
    return Orthanc(folder, environment=environment, SyncStorageArea=True, **forwarding)


@dataclass(frozen=True)
class Archive:
    """Hold an archive that instances are forwarded to, and the number it has."""

    url: str
    profile: str
    count: Callable[[], int]
    pause: float = 0.005  # seconds between two looks at the number


@contextmanager
def stow_sink(folder: Path) -> Iterator[Archive]:
    """Run the archive that keeps nothing."""
    port, path = processes.free_port(), folder / f"sink-{os.urandom(4).hex()}"
    counter = Counter(path)
    with _server([*_python("stow_sink"), str(port), path], folder, port):
        yield Archive(f"http://127.0.0.1:{port}", "standard", counter.total)


@contextmanager
def orthanc_archive(folder: Path) -> Iterator[Archive]:
    """Run the second Orthanc, which takes what is forwarded."""
    with Orthanc(folder, SyncStorageArea=True) as process:
        yield Archive(process.url, "orthanc", process.count, pause=0.05)


@contextmanager
def delayed(folder: Path, archive: Archive, round_trip: float) -> Iterator[Archive]:
    """Put a line with a round trip time in seconds before an archive."""
    listen, port = processes.free_port(), archive.url.rpartition(":")[2].partition("/")[0]
    command = [*_python("delay"), str(listen), port, str(round_trip / 2)]
    with processes.running(command, folder / "delay.log", lambda: processes.answers(listen)):
        yield Archive(archive.url.replace(f":{port}", f":{listen}"), archive.profile, archive.count)


def _python(module: str) -> list[str | Path]:
    return [sys.executable, "-m", f"bench.{module}"]


@contextmanager
def _server(
    command: Sequence[str | Path], folder: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Peer]:
    log = folder / f"{port}.log"
    with processes.running(command, log, lambda: processes.answers(port), environment=environment) as process:
        yield Peer(Target(port, "ANY"), Usage(process.pid))
