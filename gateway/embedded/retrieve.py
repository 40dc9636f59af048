"""Stream the bodies of WADO-RS answers (PS3.18 10.4)."""

import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

_PIECE: Final = 1 << 18
"""Bytes that are read and sent at a time."""


def boundary() -> str:
    """Make a boundary that no instance holds."""
    return str(uuid.uuid4())


def multipart(parts: Iterable[tuple[str, Iterable[bytes]]], mark: str) -> Iterator[bytes]:
    """Yield a multipart body of (Content-Type, bytes) pairs."""
    for content_type, chunks in parts:
        yield f"--{mark}\r\nContent-Type: {content_type}\r\n\r\n".encode()
        yield from chunks
        yield b"\r\n"
    yield f"--{mark}--\r\n".encode()


def pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes; it is opened when they are wanted."""
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            yield piece


def rest(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the bytes of an open file from its position on, and close it."""
    with file:
        while piece := file.read(_PIECE):
            yield piece


def blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes with small chunks put together: each chunk costs a change of threads."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        if size + len(chunk) > _PIECE and held:
            yield b"".join(held)
            held, size = [], 0
        held.append(chunk)
        size += len(chunk)
    if held:
        yield b"".join(held)


def cut(chunks: Iterable[bytes], after: int) -> Iterator[bytes]:
    """Yield so many bytes, then break off."""
    for chunk in chunks:
        yield chunk[:after]
        after -= len(chunk)
        if after <= 0:
            break
    raise ConnectionAbortedError("cut by a switch")
