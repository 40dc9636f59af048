"""Run the gateway as its users do: a process of its own, a YAML file, a signal to stop."""

import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import processes
import psutil
import yaml
from processes import free_port

ROOT = Path(__file__).parents[1]


class GatewayProcess:
    """`dicom-gateway serve` on a free port of the loopback; a context manager.

    `sections` are those of the configuration file; the spool is below `folder` unless they say otherwise, and
    the grace time 2 s. Its output is in `log`; leaving the context sends SIGTERM.
    """

    def __init__(self, folder: Path, **sections: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        listen = {"host": "127.0.0.1", "grace": 2, **sections.get("listen", {})}
        self.config = {**sections, "listen": {**listen, "port": listen.get("port") or free_port()}}
        self.config.setdefault("admin", None)
        self.config["spool"] = {"folder": str(folder / "spool"), "high_water": 1.0, **sections.get("spool", {})}
        self.folder = folder
        self._log = folder / "gateway.log"
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def title(self) -> str:
        """The first AE title that it answers to."""
        return next(iter(self.config.get("ae_titles", {"GATEWAY": {}})))

    @property
    def port(self) -> int:
        return int(self.config["listen"]["port"])

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the gateway was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(self.config))
        command = [sys.executable, "-m", "gateway.cli", "serve", "--config", config]
        # The child finds the package without an installation, and writes its log at once.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = self._stack.enter_context(
            processes.running(
                command,
                self._log,
                lambda: processes.answers(self.port),
                environment={"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            )
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def stop(self) -> int:
        """Send SIGTERM and give the exit code."""
        return processes.stop(self.process)

    def kill(self) -> None:
        """End all its processes at once, as a power cut would."""
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for end in (psutil.Process.suspend, psutil.Process.kill):  # suspended first: none sees another's death
            for process in family:
                with suppress(psutil.NoSuchProcess):  # it may just have ended by itself
                    end(process)
        self.process.wait()
        psutil.wait_procs(family)


def gateway(config: dict[str, Any], tmp_path: Path) -> GatewayProcess:
    return GatewayProcess(tmp_path, **config)
