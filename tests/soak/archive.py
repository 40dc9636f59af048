"""An archive in a process of its own that can be killed, and that is told on its standard input how to fail."""

import subprocess
import sys
from pathlib import Path

import processes

from gateway.embedded.server import EmbeddedArchive
from gateway.embedded.switches import Faults

_ALL = 1 << 30
_FAULTS = {
    "well": Faults(),
    "503": Faults(unavailable=_ALL),
    "hang": Faults(hanging=_ALL),
    "slow": Faults(delay=0.5),
}


class Archive:
    """Run the archive of a folder on a port; it may be killed and started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v2"
        self._folder = folder

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "soak.archive", self._folder, str(self.port)], stdin=subprocess.PIPE
        )
        processes.await_true(lambda: processes.answers(self.port), 60, "the archive")

    def say(self, fault: str) -> None:
        """Have it fail in one of the ways above, or be well again."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{fault}\n".encode())
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def main(folder: Path, port: int) -> None:
    with EmbeddedArchive(folder, port=port) as archive:
        for line in sys.stdin:
            archive.switches.set(_FAULTS[line.strip()])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
