"""An embedded archive with thousands of studies in which new ones appear before every search."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from embedded_archive import instance, multipart

from gateway.embedded.index import Addition, Index
from gateway.embedded.server import EmbeddedArchive

_STOW = {
    "Accept": "application/dicom+json",
    "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
}


def study(number: int) -> str:
    return f"1.2.826.0.1.{number}"


def fill(folder: Path, count: int) -> None:
    """Put studies of one instance each into an archive's index, without their files: searches need none."""
    folder.mkdir(parents=True, exist_ok=True)
    index = Index(folder / "index.sqlite3")
    try:
        index.add([_addition(number) for number in range(count)])
    finally:
        index.close()


def _addition(number: int) -> Addition:
    uid = study(number)
    model = {
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.7"]},
        "00080018": {"vr": "UI", "Value": [f"{uid}.1.1"]},
        "00080020": {"vr": "DA", "Value": ["20240102"]},
        "00080060": {"vr": "CS", "Value": ["OT"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Doe^{number}"}]},
        "00100020": {"vr": "LO", "Value": [f"P{number}"]},
        "0020000D": {"vr": "UI", "Value": [uid]},
        "0020000E": {"vr": "UI", "Value": [f"{uid}.1"]},
    }
    return Addition((uid, f"{uid}.1", f"{uid}.1.1"), "none", "1.2.840.10008.1.2.1", model)


@dataclass
class Growing:
    """Say where it is and which studies were stored while it was asked."""

    url: str = ""
    added: list[str] = field(default_factory=list)


@contextmanager
def growing(folder: Path, *, growth: int, first: int) -> Iterator[Growing]:
    """Serve the archive in `folder` behind a proxy that stores `growth` new studies before each search."""
    state, numbers = Growing(), itertools.count(first)
    with EmbeddedArchive(folder) as archive, httpx.Client(timeout=30) as http:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                new = [study(next(numbers)) for _ in range(growth)]
                files = [instance(uid, f"{uid}.1", f"{uid}.1.1") for uid in new]
                http.post(f"{archive.url}/studies", content=multipart(files), headers=_STOW).raise_for_status()
                state.added += new
                found = http.get(
                    archive.url + self.path.removeprefix("/v2"), headers={"Accept": self.headers["Accept"]}
                )
                self.send_response(found.status_code)
                self.send_header("Content-Type", found.headers.get("Content-Type", "text/plain"))
                if found.status_code != 204:
                    self.send_header("Content-Length", str(len(found.content)))
                self.end_headers()
                self.wfile.write(found.content)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v2"
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
