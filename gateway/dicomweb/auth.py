"""Sign in to an archive: a header for each request, and one chance to renew it after a 401."""

import base64
import re
from pathlib import Path
from typing import Protocol

from gateway.errors import SignInRefused

_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header can carry; anything else would show up in an error


class Auth(Protocol):
    """Give the Authorization header of a request; used by several threads at once."""

    def header(self) -> str:
        """Give the header's value; raises SignInRefused when there is none to be had."""

    def renew(self, refused: str) -> bool:
        """Say whether the next header is another one than the one that was refused."""


class Basic:
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


class Bearer:
    """Sign in with a token that does not change (RFC 6750)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def header(self) -> str:
        """Give the header's value; raises SignInRefused when the token cannot be one."""
        return _bearer(self._token, "the configured token")

    def renew(self, refused: str) -> bool:
        """Say that there is no other token."""
        return self.header() != refused


class TokenFile:
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
        return _bearer(self._read[1], f"token file {self._path}")

    def renew(self, refused: str) -> bool:
        """Have the file read again, whatever its time says; say whether its token is another one."""
        self._read = (-1, "")
        return self.header() != refused


def _bearer(token: str, source: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise SignInRefused("sign-in", f"{source} is empty or has characters that no token has")
    return f"Bearer {token}"
