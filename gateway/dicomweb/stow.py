"""Build STOW-RS requests and read their answers, instance by instance (PS3.18 10.5)."""

import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from gateway.errors import SpoolBroken
from gateway.extent import Extent, Part
from gateway.translate.conform import concerns, conform
from gateway.translate.profiles import Profile
from gateway.translate.stow_outcomes import NOT_TOLD

_PIECE = 65_536
_LONGEST_PIECE = _PIECE + 1_024  # httpx writes larger pieces in quadratic time

REFERENCED, FAILED, OTHER = "00081199", "00081198", "0008119A"
_SOP_INSTANCE, _FAILURE_REASON, _WARNING_REASON = "00081155", "00081197", "00081196"
_FAILED_ATTRIBUTES, _ERROR_COMMENT = "00741048", "00000902"


@dataclass(frozen=True, slots=True)
class Upload:
    """Name a Part 10 file to store, with the UIDs of what it holds."""

    extent: Extent
    sop_class: str
    sop_instance: str
    study: str
    series: str

    @property
    def size(self) -> int:
        """Give the length in bytes."""
        return self.extent.size

    @contextmanager
    def opened(self) -> Iterator[Part]:
        """Open the file; raises SpoolBroken when that fails or it is not `size` bytes long."""
        try:
            file = self.extent.raw()
        except OSError as error:
            raise SpoolBroken(f"an instance cannot be read: {error.strerror}") from error
        with file:
            beyond = os.fstat(file.fileno()).st_size - file.start - self.size
            if beyond < 0 or (beyond and not file.start):
                raise SpoolBroken("an instance's file has not the length that it had")
            yield file

    def chunks(self) -> Iterator[bytes]:
        """Read the file from its start, each time anew; raises SpoolBroken when it is not `size` bytes long."""
        left = self.size
        with self.opened() as file:
            while left:
                try:
                    piece = file.read(min(left, _PIECE))
                except OSError as error:
                    raise SpoolBroken(f"an instance cannot be read: {error.strerror}") from error
                if not piece:
                    raise SpoolBroken("an instance's file has not the length that it had")
                left -= len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class Held:
    """Hold a Part 10 file to store that is in memory, with the UIDs of what it holds."""

    content: bytes
    sop_class: str
    sop_instance: str
    study: str
    series: str

    @property
    def size(self) -> int:
        """Give the length in bytes."""
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        """Give the file from its start, each time anew."""
        view = memoryview(self.content)
        for start in range(0, len(view), _PIECE):
            yield bytes(view[start : start + _PIECE])


def conformed_file(
    upload: Upload, transfer_syntax: str, profile: Profile, scratch: Callable[[], Path], *, source_ae: str = ""
) -> tuple[Upload, list[str]]:
    """Give the file as an archive's profile asks for it, and what was changed for that; itself where nothing is.

    `scratch` names files that are written, which are the caller's to remove. Raises DataSetError and TranscodingError
    when the instance cannot be read, OSError when a file cannot be read or written.
    """
    if not concerns(profile, transfer_syntax):
        return upload, []
    path = upload.extent.path
    with ExitStack() as stack:

        def opened() -> BinaryIO:
            nonlocal path
            path = scratch()
            return stack.enter_context(path.open("w+b"))

        source = stack.enter_context(upload.extent.open())
        identity = (upload.sop_class, upload.sop_instance, transfer_syntax)
        _, changes = conform(source, identity, profile, opened, source_ae=source_ae)
    return (replace(upload, extent=Extent.of(path)) if changes else upload), changes


def conformed_bytes(held: Held, transfer_syntax: str, profile: Profile) -> tuple[Held, list[str]]:
    """Do the same in memory."""
    identity = (held.sop_class, held.sop_instance, transfer_syntax)
    made = [BytesIO(held.content)]

    def opened() -> BinaryIO:
        made.append(BytesIO())
        return made[-1]

    _, changes = conform(made[0], identity, profile, opened)
    return (replace(held, content=made[-1].getvalue()) if changes else held), changes


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what became of one instance: Warning Reason when stored, Failure Reason when not.

    Not `named`: the answer does not tell its UID; without a reason too, it does not tell of it at all.
    """

    stored: bool
    warning: int | None = None
    reason: int | None = None
    comment: str = ""
    named: bool = True


@dataclass(frozen=True, slots=True)
class Body(httpx.SyncByteStream):
    """Hold a multipart body that can be sent more than once; the boundary is random."""

    uploads: Sequence[Upload | Held]
    boundary: str
    progress: Callable[[int], None] | None = None

    @classmethod
    def of(cls, uploads: Sequence[Upload | Held], progress: Callable[[int], None] | None = None) -> "Body":
        """Make the body for some uploads; `progress` hears of the bytes of the files as they leave."""
        return cls(uploads, secrets.token_hex(16), progress)

    @property
    def content_type(self) -> str:
        """Give the Content-Type; Azure refuses a `start` parameter."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    @property
    def size(self) -> int:
        """Give the length in bytes."""
        parts = sum(len(self._head) + upload.size + 2 for upload in self.uploads)
        return parts + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        """Give pieces of one size, for each of them costs httpx as much as a small instance."""
        held: list[bytes] = []
        size = 0
        for piece in self._pieces():
            if size + len(piece) > _LONGEST_PIECE:
                yield b"".join(held)
                held, size = [], 0
            held.append(piece)
            size += len(piece)
        yield b"".join(held)

    def parts(self) -> Iterator["bytes | Upload | Held"]:
        """Give what the body is made of, for those who send files better than in pieces."""
        head = self._head
        for upload in self.uploads:
            yield head
            yield upload
            head = b"\r\n" + self._head
        yield b"\r\n" + self._tail

    def _pieces(self) -> Iterator[bytes]:
        for part in self.parts():
            if isinstance(part, bytes):
                yield part
                continue
            for chunk in part.chunks():
                yield chunk
                if self.progress is not None:
                    self.progress(len(chunk))

    @property
    def _head(self) -> bytes:
        # exactly this: Azure answers 415 to a part's Content-Type with parameters
        return f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()

    @property
    def _tail(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()


def outcomes(uploads: Sequence[Upload | Held], answer: Any) -> list[Outcome]:
    """Read a STOW-RS answer (PS3.18 Annex I.2); raises ValueError when it tells of none of the instances.

    Failed items without UIDs go, in their order, to the instances that are named nowhere.
    """
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        raise ValueError("the answer is not a DICOM JSON object")  # noqa: TRY004 - as json.loads raises it
    stored = _by_uid(_items(answer, REFERENCED))
    stored.pop("", None)
    failed = _by_uid([*_items(answer, FAILED), *_items(answer, OTHER)])
    nameless = failed.pop("", [])
    found = [_outcome(upload.sop_instance, stored, failed, nameless) for upload in uploads]
    if all(outcome is None for outcome in found):
        raise ValueError("the answer tells of none of the instances that were sent")
    return [outcome or Outcome(stored=False, comment=NOT_TOLD, named=False) for outcome in found]


def _outcome(
    uid: str, stored: dict[str, list[Any]], failed: dict[str, list[Any]], nameless: list[Any]
) -> Outcome | None:
    # taken away, so that a second copy in the same request gets the item of its own
    if items := stored.get(uid):
        return Outcome(stored=True, warning=_number(items.pop(0), _WARNING_REASON))
    items = failed.get(uid) or nameless
    if not items:
        return None
    item = items.pop(0) if len(items) > 1 else items[0]
    findings = [_text(finding, _ERROR_COMMENT) for finding in _items(item, _FAILED_ATTRIBUTES)]
    return Outcome(
        stored=False,
        reason=_number(item, _FAILURE_REASON),
        comment="; ".join(filter(None, findings)),
        named=items is not nameless,
    )


def _by_uid(items: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for item in items:
        found[_text(item, _SOP_INSTANCE)].append(item)
    return dict(found)


def _items(answer: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = answer.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _first(item: dict[str, Any], tag: str) -> Any:
    element = item.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value[0] if isinstance(value, list) and value else None


def _text(item: dict[str, Any], tag: str) -> str:
    value = _first(item, tag)
    return value.strip(" \0") if isinstance(value, str) else ""


def _number(item: dict[str, Any], tag: str) -> int | None:
    value = _first(item, tag)
    try:
        return None if value is None else int(value)
    except (OverflowError, TypeError, ValueError):
        return None
