"""Sign in to an archive: a header for each request, and one chance to renew it after a 401."""

import base64
from pathlib import Path
from typing import Protocol

from gateway.errors import SignInRefused


class Auth(Protocol):
    """Give the Authorization header of a request."""

    def header(self) -> str:
        """Give the header's value; raises SignInRefused when there is none to be had."""

    def renew(self) -> bool:
        """Forget what was refused; say whether the next header may be another one."""


class Basic:
    """Sign in with user name and password (RFC 7617)."""

    def __init__(self, username: str, password: str) -> None:
        token = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
        self._header = f"Basic {token}"

    def header(self) -> str:
        """Give the header's value."""
        return self._header

    def renew(self) -> bool:
        """Say that there is no other password."""
        return False


class Bearer:
    """Sign in with a token that does not change (RFC 6750)."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def header(self) -> str:
        """Give the header's value."""
        return self._header

    def renew(self) -> bool:
        """Say that there is no other token."""
        return False


class TokenFile:
    """Sign in with a token from a file that something else keeps fresh; it is read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, str] = (-1, "")

    def header(self) -> str:
        """Give the header's value; raises SignInRefused when the file cannot be read."""
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._read[0]:
                self._read = (changed, self._path.read_text(encoding="utf-8").strip())
        except OSError as error:
            raise SignInRefused("sign-in", f"token file {self._path}: {error.strerror}") from error
        return f"Bearer {self._read[1]}"

    def renew(self) -> bool:
        """Have the file read again; say whether its token is another one now."""
        before = self._read[1]
        self._read = (-1, "")
        self.header()
        return self._read[1] != before
