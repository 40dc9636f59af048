"""Run a real Orthanc with its DICOMweb plug-in, as an archive behind the gateway and as a DIMSE peer."""

import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import processes

_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


class Orthanc:
    """An Orthanc on free ports that keeps everything below `folder`; a context manager.

    `modalities` are its DIMSE peers, AE title -> (host, port); `settings` replace parts of its configuration;
    `environment` is added to ours.
    """

    title = "ORTHANC"

    def __init__(
        self,
        folder: Path,
        *,
        modalities: dict[str, tuple[str, int]] | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="orthanc-", dir=folder))
        self._modalities = modalities or {}
        self._environment = environment
        self._settings = settings
        self._stack = ExitStack()
        self.port = 0
        self.http_port = 0
        self.pid = 0

    @property
    def root(self) -> str:
        """The address of Orthanc's own REST API."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def url(self) -> str:
        """The address of its DICOMweb service."""
        return f"{self.root}/dicom-web"

    @property
    def log(self) -> str:
        return (self._folder / "orthanc.log").read_text(errors="replace")

    def __enter__(self) -> Self:
        self.port, self.http_port = processes.free_port(), processes.free_port()
        config = self._folder / "orthanc.json"
        config.write_text(json.dumps(self._configuration()))
        self._client = self._stack.enter_context(httpx.Client(base_url=self.root, timeout=30, trust_env=False))
        process = self._stack.enter_context(
            processes.running(
                ["Orthanc", config],
                self._folder / "orthanc.log",
                self._ready,
                seconds=60,
                environment=self._environment,
            )
        )
        self.pid = process.pid
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def count(self) -> int:
        """The number of instances it holds."""
        return int(self._get("/statistics")["CountInstances"])

    def files(self) -> dict[str, bytes]:
        """Every Part 10 file it holds, by SOP Instance UID."""
        found: dict[str, bytes] = {}
        for name in self._get("/instances"):
            uid = self._get(f"/instances/{name}")["MainDicomTags"]["SOPInstanceUID"]
            found[uid] = self._client.get(f"/instances/{name}/file").raise_for_status().content
        return found

    def clear(self) -> None:
        """Delete everything."""
        for name in self._get("/patients"):
            self._client.delete(f"/patients/{name}").raise_for_status()

    def _get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def _ready(self) -> bool:
        try:
            return self._client.get("/dicom-web/studies?limit=1").status_code in (200, 401)
        except httpx.TransportError:
            return False

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": "test",
            "StorageDirectory": str(self._folder),
            "IndexDirectory": str(self._folder),
            "SyncStorageArea": False,
            "Plugins": [_PLUGIN],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "SslEnabled": False,
            "DicomAet": self.title,
            "DicomPort": self.port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {name: [name, *address] for name, address in self._modalities.items()},
            "UnknownSopClassAccepted": True,
            "DefaultEncoding": "Utf8",
            "Locale": "C",
            "JobsHistorySize": 0,
            "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False},
            **self._settings,
        }
