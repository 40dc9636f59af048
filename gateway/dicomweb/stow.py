"""Build STOW-RS requests and read their answers, instance by instance (PS3.18 10.5)."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PIECE = 65_536  # httpx writes larger pieces in quadratic time

REFERENCED, FAILED = "00081199", "00081198"
_SOP_INSTANCE, _FAILURE_REASON, _WARNING_REASON = "00081155", "00081197", "00081196"
_FAILED_ATTRIBUTES, _ERROR_COMMENT = "00741048", "00000902"


@dataclass(frozen=True, slots=True)
class Upload:
    """Name a Part 10 file to store, `size` bytes long, with the UIDs of what it holds."""

    path: Path
    size: int
    sop_class: str
    sop_instance: str
    study: str
    series: str

    def chunks(self) -> Iterator[bytes]:
        """Read the file from its start, each time anew."""
        with self.path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                yield piece


@dataclass(frozen=True, slots=True)
class Outcome:
    """Hold what became of one instance: Warning Reason when stored, Failure Reason when not."""

    stored: bool
    warning: int | None = None
    reason: int | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """Hold a multipart body that can be sent more than once; the boundary is random."""

    uploads: Sequence[Upload]
    boundary: str

    @classmethod
    def of(cls, uploads: Sequence[Upload]) -> "Body":
        """Make the body for some uploads."""
        return cls(uploads, secrets.token_hex(16))

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
        for upload in self.uploads:
            yield self._head
            yield from upload.chunks()
            yield b"\r\n"
        yield self._tail

    @property
    def _head(self) -> bytes:
        # exactly this: Azure answers 415 to a part's Content-Type with parameters
        return f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()

    @property
    def _tail(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()


def outcomes(uploads: Sequence[Upload], answer: Any) -> list[Outcome]:
    """Read a STOW-RS answer (PS3.18 Annex I.2); raises ValueError when it says nothing of an instance.

    An item of Failed SOP Sequence without UIDs goes to the instances that are named nowhere.
    """
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, dict):
        raise ValueError("the answer is not a DICOM JSON object")  # noqa: TRY004 - as json.loads raises it
    stored = {_text(item, _SOP_INSTANCE): item for item in _items(answer, REFERENCED)}
    failed_items = _items(answer, FAILED)
    failed = {_text(item, _SOP_INSTANCE): item for item in failed_items if _text(item, _SOP_INSTANCE)}
    nameless = [item for item in failed_items if not _text(item, _SOP_INSTANCE)]
    return [_outcome(upload.sop_instance, stored, failed, nameless) for upload in uploads]


def _outcome(uid: str, stored: dict[str, Any], failed: dict[str, Any], nameless: list[dict[str, Any]]) -> Outcome:
    # popped, so that a second copy in the same request gets its own, failed, item
    if (item := stored.pop(uid, None)) is not None:
        return Outcome(stored=True, warning=_number(item, _WARNING_REASON))
    item = failed.get(uid) or (nameless[0] if nameless else None)
    if item is None:
        raise ValueError("the answer says nothing of an instance that was sent")
    findings = [_text(finding, _ERROR_COMMENT) for finding in _items(item, _FAILED_ATTRIBUTES)]
    return Outcome(stored=False, reason=_number(item, _FAILURE_REASON), comment="; ".join(filter(None, findings)))


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
    return value.strip() if isinstance(value, str) else ""


def _number(item: dict[str, Any], tag: str) -> int | None:
    value = _first(item, tag)
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):
        return None
