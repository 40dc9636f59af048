"""Judge and store the instances of a STOW-RS request, and say what became of each (PS3.18 10.5)."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ImplicitVRLittleEndian

from gateway.embedded.files import Files
from gateway.embedded.index import Index
from gateway.embedded.query import is_uid
from gateway.embedded.switches import BEING_CREATED, NOT_NOW, Switches
from gateway.errors import DataSetError
from gateway.translate.dicom_json import from_dataset
from gateway.translate.multipart import boundary_of, media_type, split
from gateway.translate.part10 import read_file_meta

_INVALID: Final = 43264
_DUPLICATE: Final = 45070
_IMPLICIT: Final = 45063
_DICOM: Final = "application/dicom"
_UIDS: Final = ("0020000D", "0020000E", "00080018", "00080016")
_PATIENT_ID: Final = "00100020"
_UNREADABLE: Final = (
    DataSetError,
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
)
"""What pydicom raises for bytes that are no data set."""


class MediaTypeError(Exception):
    """Say that the request or one of its parts has another Content-Type than this service takes."""


class RequestError(Exception):
    """Say what is wrong in the request as a whole."""


@dataclass(slots=True)
class Result:
    """Collect what became of each instance; `parts` counts them."""

    url: str
    study: str
    strict: bool
    parts: int = 0
    stored: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    warned: bool = False

    def status(self) -> int:
        """Return the HTTP status for all of it."""
        if not self.parts:
            return 204
        if not self.stored:
            return 409
        return 202 if self.failed or self.warned else 200

    def model(self) -> dict[str, Any]:
        """Return the Store Instances Response Module (PS3.18 Annex I)."""
        model: dict[str, Any] = {}
        if self.study and self.stored:
            model["00081190"] = {"vr": "UR", "Value": [f"{self.url}/studies/{self.study}"]}
        if self.failed:
            model["00081198"] = {"vr": "SQ", "Value": self.failed}
        if self.stored:
            model["00081199"] = {"vr": "SQ", "Value": self.stored}
        return model


@dataclass(frozen=True, slots=True)
class _Read:
    """Hold what a received file says of itself."""

    transfer_syntax: str
    study: str
    series: str
    instance: str
    sop_class: str
    model: dict[str, Any]

    def reference(self) -> dict[str, Any]:
        uids = (("00081150", self.sop_class), ("00081155", self.instance))
        return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids if uid}


class Store:
    """Take the bodies of STOW-RS requests."""

    def __init__(self, index: Index, files: Files, switches: Switches) -> None:
        self._index = index
        self._files = files
        self._switches = switches
        self._lock = threading.Lock()
        self._creating: set[tuple[str, str, str]] = set()

    def store(self, content_type: str, body: Iterable[bytes], result: Result) -> None:
        """Receive all instances, then judge and keep one after the other.

        Raises MediaTypeError, RequestError and MultipartError for the request as a whole; then nothing is stored.
        """
        received: list[Path] = []
        try:
            for part in _parts(content_type, body):
                received.append(self._files.receive(part))  # noqa: PERF401 - the list must grow as files do
            result.parts = len(received)
            for path in received:
                self._take(path, result)
        finally:
            for path in received:
                self._files.discard(path)

    def _take(self, path: Path, result: Result) -> None:
        try:
            read = _read(path)
        except _UNREADABLE:
            result.failed.append(_failure({}, _INVALID))
            return
        reason = self._switches.failure_reason()
        complaint = _complaint(read, result)
        if complaint or reason:
            result.failed.append(_failure(read.reference(), _INVALID if complaint else reason or 0, complaint))
            return
        try:
            reason = self._keep(path, read)
        except (OSError, sqlite3.Error) as error:
            structlog.get_logger().error("embedded_archive_cannot_store", error=type(error).__name__)
            reason = NOT_NOW
        if reason:
            result.failed.append(_failure(read.reference(), reason))
        else:
            result.stored.append(_success(read, result))

    def _keep(self, path: Path, read: _Read) -> int:
        """Make the instance durable; return the Failure Reason, 0 for none."""
        uids = (read.study, read.series, read.instance)
        with self._lock:
            if uids in self._creating:
                return BEING_CREATED
            self._creating.add(uids)
        try:
            if self._index.holds(*uids):
                return _DUPLICATE
            name = self._files.keep(path)
            if not self._index.add(uids, name, read.transfer_syntax, read.model):
                self._files.discard(self._files.path(name))
                return _DUPLICATE
            return 0
        finally:
            with self._lock:
                self._creating.discard(uids)


def _parts(content_type: str, body: Iterable[bytes]) -> Iterator[Iterable[bytes]]:
    kind, parameters = media_type(content_type)
    if kind == _DICOM and not parameters:
        yield body
        return
    if kind != "multipart/related" or not parameters.get("boundary"):
        raise MediaTypeError
    if "start" in parameters:
        raise RequestError("the parameter start is not supported")
    inherited: str | None = parameters.get("type", "")
    for part in split(_unless_empty(body, boundary_of(content_type)), boundary_of(content_type)):
        declared = part.headers.get("content-type", inherited)
        inherited = None
        if declared is None or declared.strip().lower() != _DICOM:
            raise MediaTypeError
        yield part.body


def _unless_empty(body: Iterable[bytes], boundary: str) -> Iterator[bytes]:
    """Give an empty body the closing boundary that it lacks: such a request has no parts."""
    empty = True
    for chunk in body:
        empty = empty and not chunk
        yield chunk
    if empty:
        yield b"--" + boundary.encode("ascii") + b"--\r\n"


def _read(path: Path) -> _Read:
    with path.open("rb") as file:
        syntax = read_file_meta(file).transfer_syntax
    model = from_dataset(dcmread(path, stop_before_pixels=True, force=True), bulk=False)
    study, series, instance, sop_class = (_only(model, tag) for tag in _UIDS)
    return _Read(syntax, study, series, instance, sop_class, model)


def _only(model: dict[str, Any], tag: str) -> str:
    values = model.get(tag, {}).get("Value") or []
    return values[0].rstrip(" \0") if len(values) == 1 and isinstance(values[0], str) else ""


def _complaint(read: _Read, result: Result) -> str:
    """Return why the instance cannot be stored, as the service words it; empty when it can."""
    for tag, uid in zip(_UIDS, (read.study, read.series, read.instance, read.sop_class), strict=True):
        if not is_uid(uid):
            return f"DICOM100: ({tag[:4].lower()},{tag[4:].lower()}) - a UID is missing or malformed"
    patient_id = read.model.get(_PATIENT_ID)
    if patient_id is None or (result.strict and not patient_id.get("Value")):
        return "DICOM100: (0010,0020) - the required attribute is missing"
    if result.study and result.study.lower() != read.study.lower():
        return "DICOM110: (0020,000d) - the study differs from the study of the request"
    return ""


def _success(read: _Read, result: Result) -> dict[str, Any]:
    url = f"{result.url}/studies/{read.study}/series/{read.series}/instances/{read.instance}"
    item = read.reference() | {"00081190": {"vr": "UR", "Value": [url]}}
    if read.transfer_syntax == ImplicitVRLittleEndian:
        item["00081196"] = {"vr": "US", "Value": [_IMPLICIT]}
        result.warned = result.warned or not result.strict
    if not result.strict:
        item["00741048"] = {"vr": "SQ"}
        if not read.model[_PATIENT_ID].get("Value"):
            item["00741048"] = _comments("DICOM100: (0010,0020) - the attribute has no value")
            item.setdefault("00081196", {"vr": "US", "Value": [1]})
            result.warned = True
    return item


def _failure(reference: dict[str, Any], reason: int, comment: str = "") -> dict[str, Any]:
    item = reference | {"00081197": {"vr": "US", "Value": [reason]}}
    if comment:
        item["00741048"] = _comments(comment)
    return item


def _comments(comment: str) -> dict[str, Any]:
    return {"vr": "SQ", "Value": [{"00000902": {"vr": "LO", "Value": [comment]}}]}
