"""Ask a DICOMweb archive: STOW-RS, QIDO-RS, WADO-RS and DELETE (PS3.18 chapter 10), synchronously."""

import json
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

import httpx

from gateway.dicomweb.auth import Auth
from gateway.dicomweb.faults import archive_errors, check, fault
from gateway.dicomweb.stow import Body, Outcome, Upload, outcomes
from gateway.errors import AnswerUnreadable, MultipartError, RequestRefused
from gateway.translate.multipart import boundary_of, media_type, split
from gateway.translate.profiles import PROFILES, Profile

__all__ = ["Client", "InstanceStream", "Outcome", "Upload"]

_JSON = "application/dicom+json"
_UID = re.compile(r"[0-9.]{1,64}")
_SAFE = "-._~,:@!$'()*;/"  # literal in a query (RFC 3986 3.4), so that plain servers understand them
_MOST_REDIRECTS = 5
_UNIQUE = ("0020000D", "0020000E", "00080018")


@dataclass(frozen=True, slots=True)
class InstanceStream:
    """Hold one retrieved instance: a Part 10 file in chunks, to be consumed before the next."""

    transfer_syntax: str
    chunks: Iterator[bytes]


class Client:
    """Ask one archive; safe to use from several threads. Times in seconds.

    Every method raises ArchiveError; a failure is never an empty result.
    """

    def __init__(  # noqa: PLR0913 - all by keyword, each an option of the configuration
        self,
        url: str,
        *,
        name: str = "archive",
        profile: Profile = PROFILES["standard"],
        auth: Auth | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        verify: bool | str | ssl.SSLContext = True,
        connections: int = 8,
        connect_timeout: float = 5,
        read_timeout: float = 30,
        proxy: str | None = None,
    ) -> None:
        self.name = name
        self.profile = profile
        self._url = url.rstrip("/")
        self._auth = auth
        context = ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
        self._http = httpx.Client(
            headers=dict(headers),
            verify=context,
            proxy=proxy,
            trust_env=False,
            timeout=httpx.Timeout(read_timeout, connect=connect_timeout, pool=read_timeout),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.name!r}, profile={self.profile.name!r})"

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def store(self, uploads: Sequence[Upload], *, study: str = "") -> list[Outcome]:
        """Store instances in one request and give one outcome for each, in order (PS3.18 10.5).

        The outcome is read from the answer's sequences whatever the HTTP status; an ArchiveError means that
        nothing is known of any of them. Never repeated here: the caller decides.
        """
        body = Body.of(uploads)
        headers = {
            "Accept": _JSON,
            "Content-Type": body.content_type,
            "Content-Length": str(body.size),
        }
        with self._stream("POST", self._path(study), headers, body) as response:
            status = response.status_code
            if status not in (200, 202, 409):
                raise fault(self.name, status, response.headers.get("Retry-After", ""))
            with archive_errors(self.name):
                content = response.read()
        try:
            return outcomes(uploads, json.loads(content))
        except ValueError as error:
            if status == 409:
                raise RequestRefused(self.name, "HTTP 409 without a STOW answer", http_status=409) from error
            raise AnswerUnreadable(self.name, f"HTTP {status} without a STOW answer", http_status=status) from error

    def search(self, resource: str, parameters: Iterable[tuple[str, str]]) -> Iterator[list[dict[str, Any]]]:
        """Yield page after page of a search until the archive has no more (PS3.18 10.6).

        A short page is not the last one. Repeats between pages are the caller's to drop; a page that only
        repeats what came before ends the search, since such an archive does not page.
        """
        limit = self.profile.max_limit
        seen: set[tuple[str, ...]] = set()
        offset = 0
        while True:
            paging = [("limit", str(limit)), ("offset", str(offset))] if limit else []
            page = self._json(resource, [*parameters, *paging])
            fresh = [entry for entry in page if (key := _key(entry)) not in seen and not seen.add(key)]  # type: ignore[func-returns-value]
            if fresh:
                yield page
            if not fresh or not limit:
                return
            offset += max(limit, len(page))

    def metadata(self, study: str, series: str = "", instance: str = "") -> list[dict[str, Any]]:
        """Retrieve the metadata of a study, series or instance (PS3.18 10.4.1.1.2)."""
        page = self._json(self._path(study, series, instance) + "/metadata", [])
        if not page:
            raise AnswerUnreadable(self.name, "metadata without content")
        return page

    @contextmanager
    def retrieve(
        self, study: str, series: str = "", instance: str = "", *, transfer_syntax: str = "*"
    ) -> Iterator[Iterator[InstanceStream]]:
        """Stream the instances of a study, series or one instance; `*` asks for them as they are stored.

        The iteration raises AnswerUnreadable when the answer is cut, however much came before.
        """
        headers = {"Accept": f'multipart/related; type="application/dicom"; transfer-syntax={transfer_syntax}'}
        with self._stream("GET", self._path(study, series, instance), headers) as response:
            check(self.name, response)
            yield self._instances(response)

    def frames(self, study: str, series: str, instance: str, frames: Sequence[int]) -> list[bytes]:
        """Retrieve frames by their numbers, from 1, as they are stored (PS3.18 10.4.1.1.4)."""
        numbers = ",".join(str(number) for number in frames)
        headers = {"Accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
        path = f"{self._path(study, series, instance)}/frames/{numbers}"
        with self._stream("GET", path, headers) as response:
            check(self.name, response)
            return [b"".join(stream.chunks) for stream in self._instances(response)]

    def delete(self, study: str, series: str = "", instance: str = "") -> None:
        """Delete a study, series or instance; raises NotFound when it is not there."""
        with self._stream("DELETE", self._path(study, series, instance), {}) as response:
            check(self.name, response)

    def _instances(self, response: httpx.Response) -> Iterator[InstanceStream]:
        content_type = response.headers.get("Content-Type", "")
        kind, parameters = media_type(content_type)
        with self._readable():
            if kind in ("application/dicom", "application/octet-stream"):
                yield InstanceStream(parameters.get("transfer-syntax", ""), self._chunks(response.iter_bytes()))
                return
            for part in split(response.iter_bytes(), boundary_of(content_type)):
                _, of_part = media_type(part.headers.get("content-type", ""))
                yield InstanceStream(of_part.get("transfer-syntax", ""), self._chunks(part.body))

    def _chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        # its errors arise where it is consumed, outside `_instances`
        with self._readable():
            yield from chunks

    @contextmanager
    def _readable(self) -> Iterator[None]:
        with archive_errors(self.name):
            try:
                yield
            except MultipartError as error:
                raise AnswerUnreadable(self.name, str(error)) from error

    def _json(self, path: str, parameters: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        query = "&".join(f"{quote(key, safe=_SAFE)}={quote(value, safe=_SAFE)}" for key, value in parameters)
        target = f"{path}?{query}" if query else path
        with self._stream("GET", target, {"Accept": _JSON}) as response:
            check(self.name, response)
            if response.status_code == 204:
                return []
            with archive_errors(self.name):
                content = response.read()
        try:
            page = json.loads(content)
        except ValueError as error:
            raise AnswerUnreadable(self.name, "the answer is not JSON") from error
        if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
            raise AnswerUnreadable(self.name, "the answer is not a list of DICOM JSON objects")
        return page

    @contextmanager
    def _stream(
        self, method: str, path: str, headers: Mapping[str, str], body: Iterable[bytes] | None = None
    ) -> Iterator[httpx.Response]:
        """Send a request, once more after a 401 if the sign-in can be renewed, and along same-origin redirects."""
        url, renewed = f"{self._url}/{path}", False
        for _ in range(_MOST_REDIRECTS):
            signed = {**headers, "Authorization": self._auth.header()} if self._auth else dict(headers)
            with archive_errors(self.name):
                # an iterator of its own for each attempt: a repeated body is never an empty one
                content = iter(body) if body is not None else None
                request = self._http.build_request(method, url, headers=signed, content=content)
                response = self._http.send(request, stream=True)
            try:
                if response.status_code == 401 and self._auth and not renewed and self._auth.renew():
                    renewed = True
                    continue
                if response.status_code in (307, 308):
                    url = self._redirected(url, response.headers.get("Location", ""))
                    continue
                yield response
                return
            finally:
                response.close()
        raise AnswerUnreadable(self.name, "too many redirects")

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        if urlsplit(target)[:2] != urlsplit(url)[:2]:
            raise AnswerUnreadable(self.name, "a redirect leads to another server; set its URL in archives")
        return target

    def _path(self, study: str = "", series: str = "", instance: str = "") -> str:
        path = "studies"
        for uid, level in ((study, ""), (series, "/series"), (instance, "/instances")):
            if uid:
                if not _UID.fullmatch(uid):
                    raise RequestRefused(self.name, "a UID has characters that no UID has")
                path += f"{level}/{uid}"
        return path


def _key(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Identify an entry of a page by its UIDs."""
    values = (entry.get(tag, {}) for tag in _UNIQUE)
    return tuple(json.dumps(value.get("Value")) if isinstance(value, dict) else "" for value in values)
