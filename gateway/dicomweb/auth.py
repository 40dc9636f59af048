"""Sign in to an archive: a header for each request, and one chance to renew it after a 401."""

import base64
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import SignInRefused

_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can carry; anything else would show up in an error


@dataclass(frozen=True, slots=True)
class Request:
    """Hold what a signature may have to cover; the body can be read more than once."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Iterable[bytes] | None


class Auth(ABC):
    """Sign requests; used by several threads at once."""

    @abstractmethod
    def headers(self, request: Request) -> Mapping[str, str]:
        """Give the headers that sign a request; raises SignInRefused when they are not to be had."""

    @abstractmethod
    def renew(self, refused: str) -> bool:
        """Say whether the next Authorization is another one than the one that was refused."""


class Authorization(Auth):
    """Sign in by a header that is the same for every request."""

    def headers(self, request: Request) -> Mapping[str, str]:  # noqa: ARG002 - the same for every request
        """Give the header."""
        return {"Authorization": self.header()}

    @abstractmethod
    def header(self) -> str:
        """Give the header's value; raises SignInRefused when there is none to be had."""


class Basic(Authorization):
    """Sign in with user name and password (RFC 7617)."""

    def __init__(self, username: str, password: str) -> None:
        token = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
        self._header = f"Basic {token}"

    def header(self) -> str:
        """Give the header's value."""
        return self._header

    def renew(self, refused: str) -> bool:
        """Say that there is no other password."""
        return self._header != refused


class Bearer(Authorization):
    """Sign in with a token that does not change (RFC 6750)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def header(self) -> str:
        """Give the header's value; raises SignInRefused when the token cannot be one."""
        return bearer(self._token, "the configured token")

    def renew(self, refused: str) -> bool:
        """Say that there is no other token."""
        return self.header() != refused


class TokenFile(Authorization):
    """Sign in with a token from a file that something else keeps fresh; it is read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, str] = (-1, "")

    def header(self) -> str:
        """Give the header's value; raises SignInRefused when the file cannot be read or holds no token."""
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._read[0]:
                self._read = (changed, self._path.read_text(encoding="latin-1").strip())
        except OSError as error:
            raise SignInRefused("sign-in", f"token file {self._path}: {error.strerror}") from error
        return bearer(self._read[1], f"token file {self._path}")

    def renew(self, refused: str) -> bool:
        """Have the file read again, whatever its time says; say whether its token is another one."""
        self._read = (-1, "")
        return self.header() != refused


def bearer(token: str, source: str) -> str:
    """Give the header's value for a token; raises SignInRefused when it cannot be one."""
    if not _TOKEN.fullmatch(token):
        raise SignInRefused("sign-in", f"{source} is empty or has characters that no token has")
    return f"Bearer {token}"
