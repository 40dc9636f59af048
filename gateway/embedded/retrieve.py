"""Choose the form of WADO-RS answers and stream them (PS3.18 10.4)."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.translate.multipart import media_type

EXPLICIT: Final = "1.2.840.10008.1.2.1"
JPEG_2000: Final = "1.2.840.10008.1.2.4.90"
_PIECE: Final = 1 << 18


class NotAcceptable(Exception):
    """Say that the service has no answer in a form that the client accepts."""


@dataclass(frozen=True, slots=True)
class Form:
    """Hold the chosen form: multipart or not, and the transfer syntax, `*` for the one stored."""

    multipart: bool
    transfer_syntax: str


def accepted(values: Sequence[str]) -> list[str]:
    """Split Accept headers into media ranges, leaving commas inside quotes alone."""
    found: list[str] = []
    for value in values:
        quoted, piece = False, ""
        for character in value:
            quoted = quoted != (character == '"')
            if character == "," and not quoted:
                found.append(piece.strip())
                piece = ""
            else:
                piece += character
        found.append(piece.strip())
    return [one for one in found if one]


def takes_json(values: Sequence[str]) -> bool:
    """Say whether an Accept header takes application/dicom+json; a missing one does not."""
    takes = {"application/dicom+json", "application/json", "application/*", "*/*"}
    return any(media_type(one)[0] in takes for one in accepted(values))


def choose(values: Sequence[str], *, media: str, single: bool) -> Form:
    """Choose the form for `media`; `single` says whether one part may come bare. Raises NotAcceptable."""
    forms = []
    for one in accepted(values):
        kind, parameters = media_type(one)
        multipart = kind == "multipart/related" and parameters.get("type", media) in {media, "*/*"}
        bare = kind == media and single
        syntax = parameters.get("transfer-syntax", EXPLICIT)
        if kind == "*/*" and single:
            forms.append((_quality(parameters), Form(multipart=True, transfer_syntax="*")))
        elif (multipart or bare) and syntax in {"*", EXPLICIT, JPEG_2000}:
            forms.append((_quality(parameters), Form(multipart, syntax)))
    if not forms:
        raise NotAcceptable
    return max(forms, key=lambda form: (form[0], form[1].transfer_syntax == "*"))[1]


def _quality(parameters: dict[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 0.0


def boundary() -> str:
    """Make a boundary that no instance holds."""
    return str(uuid.uuid4())


def multipart(parts: Iterable[tuple[str, Iterable[bytes]]], mark: str, *, cut: bool = False) -> Iterator[bytes]:
    """Yield a multipart body of (Content-Type, bytes) pairs; `cut` breaks it off within the first."""
    for content_type, chunks in parts:
        yield f"--{mark}\r\nContent-Type: {content_type}\r\n\r\n".encode()
        for chunk in chunks:
            if cut:
                yield chunk[: max(1, len(chunk) // 2)]
                raise ConnectionAbortedError("cut by a switch")
            yield chunk
        yield b"\r\n"
    yield f"--{mark}--\r\n".encode()


def pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
