"""Take multipart/related bodies apart as they arrive, in bounded memory (RFC 2046 5.1, RFC 2387)."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.errors import MultipartError

_LONGEST_HEADERS = 16_384
_LONGEST_EPILOGUE = 65_536
_FOLD = re.compile(rb"\r\n[ \t]+")  # a header that goes on in the next line (RFC 5322 2.2.3)
_LONGEST_BOUNDARY = 70  # RFC 2046 5.1.1, and a little mercy below


@dataclass(frozen=True, slots=True)
class Part:
    """Hold a part's headers, names in lower case, and its body, to be consumed before the next part."""

    headers: dict[str, str]
    body: Iterator[bytes]


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """Split a Content-Type into its type in lower case and its parameters, unquoted (RFC 9110 8.3.1)."""
    parts = _split_quoted(content_type)
    parameters = {}
    for part in parts[1:]:
        name, _, value = part.partition("=")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1].replace('\\"', '"')
        parameters[name.strip().lower()] = value
    return parts[0].strip().lower(), parameters


def boundary_of(content_type: str) -> str:
    """Give the boundary of a multipart Content-Type; raises MultipartError."""
    kind, parameters = media_type(content_type)
    boundary = parameters.get("boundary", "")
    if not kind.startswith("multipart/"):
        raise MultipartError(f"{kind or 'no Content-Type'} is not multipart")
    if not boundary or len(boundary) > 2 * _LONGEST_BOUNDARY or not boundary.isascii():
        raise MultipartError("the multipart Content-Type has no usable boundary")
    return boundary


def split(chunks: Iterable[bytes], boundary: str) -> Iterator[Part]:
    """Yield the parts of a body given in chunks of any size.

    A part's body is to be consumed before the next part; what is left of it is passed over. The chunks are
    read to their end, so that a connection they come from can be used again. Raises MultipartError when the
    framing is broken or the closing boundary does not come.
    """
    reader = _Reader(chunks, b"\r\n--" + boundary.encode("ascii"))
    reader.preamble()
    while reader.at_part():
        body = reader.body()
        yield Part(reader.headers(), body)
        for _ in body:
            pass
    reader.epilogue()


class _Reader:
    """Hold the unread bytes and how far they have been searched, so that the time stays linear."""

    def __init__(self, chunks: Iterable[bytes], delimiter: bytes) -> None:
        self._chunks = iter(chunks)
        self._delimiter = delimiter
        self._buffer = b"\r\n"  # lets the first boundary stand at the very start

    def preamble(self) -> None:
        """Go behind the first boundary."""
        for _ in self.body():
            pass

    def epilogue(self) -> None:
        """Pass over what follows the closing boundary; RFC 2046 5.1.1 has it ignored, so it is never long."""
        passed = 0
        for chunk in self._chunks:
            passed += len(chunk)
            if passed > _LONGEST_EPILOGUE:
                raise MultipartError("the body goes on behind its closing boundary")

    def at_part(self) -> bool:
        """Say whether a part follows the boundary just passed, or the body has ended."""
        self._need(2)
        if self._buffer.startswith(b"--"):
            return False
        if self._line(b"\r\n").strip(b" \t"):
            raise MultipartError("a boundary line goes on with something else")
        return True

    def headers(self) -> dict[str, str]:
        """Read the header block of a part."""
        self._need(2)
        if self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer[2:]
            return {}
        block = self._line(b"\r\n\r\n")
        headers = {}
        for line in _FOLD.sub(b" ", block).split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if not colon:
                raise MultipartError("a part's header line has no colon")
            headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
        return headers

    def body(self) -> Iterator[bytes]:
        """Yield the bytes up to the next boundary, and go behind it; a chunk without one is passed on uncopied."""
        while (found := self._buffer.find(self._delimiter)) < 0:
            whole = len(self._buffer) - self._begun()
            if whole > 0:
                yield self._buffer[:whole]
                self._buffer = self._buffer[whole:]
            self._more()
        if found:
            yield self._buffer[:found]
        self._buffer = self._buffer[found + len(self._delimiter) :]

    def _begun(self) -> int:
        """Give the length of what may be the beginning of a delimiter at the end of the buffer."""
        tail = self._buffer[-len(self._delimiter) + 1 :]
        at = tail.find(b"\r")
        while at >= 0 and not self._delimiter.startswith(tail[at:]):
            at = tail.find(b"\r", at + 1)
        return len(tail) - at if at >= 0 else 0

    def _line(self, end: bytes) -> bytes:
        """Take what comes before `end`, and go behind it."""
        while (found := self._buffer.find(end)) < 0 and len(self._buffer) < _LONGEST_HEADERS + len(end):
            self._more()
        if not 0 <= found <= _LONGEST_HEADERS:
            raise MultipartError("a part's headers are too long")
        taken, self._buffer = self._buffer[:found], self._buffer[found + len(end) :]
        return taken

    def _need(self, count: int) -> None:
        while len(self._buffer) < count:
            self._more()

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise MultipartError("the body ends without its closing boundary")
        self._buffer = self._buffer + chunk if self._buffer else bytes(chunk)


def _split_quoted(text: str) -> list[str]:
    """Split at semicolons that are not inside quotes."""
    parts, quoted, last = [], False, 0
    for position, character in enumerate(text):
        if character == '"' and text[position - 1 : position] != "\\":
            quoted = not quoted
        elif character == ";" and not quoted:
            parts.append(text[last:position])
            last = position + 1
    return [*parts, text[last:]]
