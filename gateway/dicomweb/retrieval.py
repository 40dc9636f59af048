"""Read retrieved instances as they arrive, one after the other, in bounded memory (PS3.18 10.4)."""

import os
import re
import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Self

import httpx
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError

from gateway.dicomweb.transport import Transport
from gateway.errors import AnswerUnreadable, DataSetError
from gateway.translate.multipart import boundary_of, media_type, split
from gateway.translate.part10 import read_file_meta

_LONGEST_META = 4096
_FILE_NAME = re.compile(r"[0-9][0-9.]{0,63}")

Progress = Callable[[int], None]
"""Is called with the number of bytes that just passed."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Hold one retrieved instance, a Part 10 file in chunks, to be used once and before the next is taken.

    `transfer_syntax` is what the archive's header says; some write `*`, the file itself knows better.
    """

    transfer_syntax: str
    chunks: Iterator[bytes]

    def read(self) -> bytes:
        """Give the whole Part 10 file; for instances of any size use `save` or `chunks`."""
        return b"".join(self.chunks)

    def dataset(self) -> FileDataset:
        """Give the instance as pydicom's data set; raises DataSetError when it is no Part 10 file."""
        try:
            return dcmread(BytesIO(self.read()))
        except InvalidDicomError as error:
            raise DataSetError("the retrieved instance is not a Part 10 file") from error

    def save(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> Path:
        """Write the Part 10 file and give its path; in a folder it is named by its SOP Instance UID.

        A path that is not there and has no extension is a folder, which is made. The file appears when it is
        complete, in place of an older one. Raises OSError when it cannot be written.
        """
        target, chunks = Path(path), self.chunks
        if not target.suffix and not target.is_file():
            target.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            head, chunks = _begun(chunks)
            target /= f"{_name(head)}.dcm"
        partial = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with partial.open("xb", buffering=0) as file:
                for chunk in chunks:
                    file.write(chunk)
                    if progress is not None:
                        progress(len(chunk))
            return partial.replace(target)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise


class Instances:
    """Iterate over the instances of an answer; as a context manager it can be left early.

    The iteration raises AnswerUnreadable when the answer is cut, however much came before.
    """

    def __init__(self, transport: Transport, ask: Callable[[], httpx.Response]) -> None:
        self._transport = transport
        self._ask = ask
        self._stream: Generator[Instance] | None = None
        self._current = 0

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Instance:
        stream = self._opened()
        self._current += 1
        return next(stream)

    def close(self) -> None:
        """Give the connection back, or close it when the answer was not read to its end."""
        if self._stream is not None:
            self._stream.close()

    def _opened(self) -> Generator[Instance]:
        if self._stream is None:
            self._stream = self._read(self._ask())
            next(self._stream)  # from here on the response is the generator's to close
        return self._stream

    def _read(self, response: httpx.Response) -> Generator[Instance]:
        try:
            yield Instance("", iter(()))
            content_type = response.headers.get("Content-Type", "")
            kind, parameters = media_type(content_type)
            if response.status_code == 204:
                raise AnswerUnreadable(self._transport.name, "HTTP 204 No Content where instances were expected")
            with self._transport.readable():
                # as it comes off the network where nothing has to be undone
                coded = "Content-Encoding" in response.headers
                body = response.iter_bytes() if coded else response.iter_raw()
                if kind in ("application/dicom", "application/octet-stream"):
                    yield Instance(parameters.get("transfer-syntax", ""), self._chunks(body, 1))
                    return
                for number, part in enumerate(split(body, boundary_of(content_type)), 1):
                    _, of_part = media_type(part.headers.get("content-type", ""))
                    yield Instance(of_part.get("transfer-syntax", ""), self._chunks(part.body, number))
        finally:
            response.close()

    def _chunks(self, chunks: Iterator[bytes], number: int) -> Iterator[bytes]:
        # its errors arise where it is consumed, outside `_read`
        with self._transport.readable():
            for chunk in chunks:
                yield chunk
                self._require_current(number)
        self._require_current(number)

    def _require_current(self, number: int) -> None:
        if number != self._current:
            raise ValueError("an instance is to be used before the next is taken")


def _begun(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Look at the beginning of a file, long enough for its File Meta, and give it back with the whole."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= _LONGEST_META:
            break
    return head, chain((head,), chunks)


def _name(head: bytes) -> str:
    uid = read_file_meta(BytesIO(head)).sop_instance
    if not _FILE_NAME.fullmatch(uid):
        raise DataSetError("the retrieved instance has no SOP Instance UID to name its file by")
    return uid
