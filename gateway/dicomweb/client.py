"""Ask a DICOMweb archive: STOW-RS, QIDO-RS, WADO-RS and DELETE (PS3.18 chapter 10), synchronously."""

import copy
import json
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

import httpx

from gateway.dicomweb.auth import Auth
from gateway.dicomweb.faults import archive_errors, check, fault, patiently
from gateway.dicomweb.stow import Body, Outcome, Upload, outcomes
from gateway.errors import AnswerUnreadable, ArchiveError, MultipartError, RequestRefused
from gateway.translate.multipart import boundary_of, media_type, split
from gateway.translate.profiles import PROFILES, Profile

__all__ = ["Client", "InstanceStream", "Outcome", "Upload"]

_JSON = "application/dicom+json"
_UID = re.compile(r"[0-9][0-9.]{0,63}")  # a digit first: `..` would climb the path
_RESOURCE = re.compile(
    "studies|series|instances|studies/UID/(series|instances)|studies/UID/series/UID/instances".replace(
        "UID", _UID.pattern
    )
)
_NOT_VISIBLE = re.compile(r"[^\x21-\x7e]")
_SAFE = "-._~,:@!$'()*/"  # literal in a query (RFC 3986 3.4), so that plain servers understand them
_ANSWERS = (200, 202, 400, 409)  # to STOW-RS; Orthanc's 400 too says what it stored before the part it refuses
_SMALL = 65_536
_MOST_REDIRECTS = 5
_MOST_REPEATS = 50  # pages in a row without a new entry
_UNIQUE = ("0020000D", "0020000E", "00080018")
_AS_IT_IS = {"Accept-Encoding": "identity"}  # to compress pixels takes Orthanc 15 times as long as to send them


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
        self._correlation: Mapping[str, str] = MappingProxyType({})
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

    def correlated(self, request_id: str) -> "Client":
        """Give this client, on the same connections, with an X-Request-ID on every request."""
        twin = copy.copy(self)
        twin._correlation = {"X-Request-ID": _NOT_VISIBLE.sub("_", request_id)[:64]}  # noqa: SLF001 - its own class
        return twin

    def store(self, uploads: Sequence[Upload], *, study: str = "") -> list[Outcome]:
        """Store instances in one request and give one outcome for each, in order (PS3.18 10.5).

        The outcome is read from the answer's sequences whatever the HTTP status; an ArchiveError means that
        nothing is known of any of them. Never repeated here: the caller decides. Raises SpoolBroken when a
        file cannot be read.
        """
        path, body = f"studies/{self._uid(study)}" if study else "studies", Body.of(uploads)
        headers = {
            "Accept": _JSON,
            "Content-Type": body.content_type,
            "Content-Length": str(body.size),
        }
        with closing(self._send("POST", path, headers, body)) as response:
            status = response.status_code
            if status not in _ANSWERS:
                raise fault(self.name, status, response.headers.get("Retry-After", ""))
            content = self._read(response)
        try:
            return outcomes(uploads, _parsed(content))
        except ValueError as error:
            kind = RequestRefused if status >= 400 else AnswerUnreadable
            raise kind(self.name, f"HTTP {status} without a STOW answer", http_status=status) from error

    def search(self, resource: str, parameters: Iterable[tuple[str, str]]) -> Iterator[list[dict[str, Any]]]:
        """Yield page after page of a search until the archive has no more (PS3.18 10.6).

        A short page is not the last one, and the next begins behind what came, not behind what was asked for:
        an archive may cap its pages silently. Repeats between pages are the caller's to drop: new entries push
        known ones back, whole pages when there are many. Two pages in a row of nothing but repeats end the search
        when they are short, since behind the end of an archive that goes on growing there is no other, or when each
        has all that came before, since such an archive does not page. Full ones do not, and raise AnswerUnreadable
        when they have no end: what follows is not known.
        """
        if not _RESOURCE.fullmatch(resource):
            raise RequestRefused(self.name, "there is no such resource to search")
        limit, offset = self.profile.max_limit, 0
        given, seen = list(parameters), set[int]()
        longest = stale = ending = 0
        while ending < 2:
            paging = [("limit", str(limit)), ("offset", str(offset))] if limit else []
            page = self._json(resource, [*given, *paging])
            keys = {_key(entry) for entry in page}
            stale = stale + 1 if keys <= seen else 0
            ending = ending + 1 if stale and (len(page) < longest or keys == seen) else 0
            if not stale:
                yield page
            if not page or not limit:
                return
            if stale > _MOST_REPEATS:
                raise AnswerUnreadable(self.name, "its pages repeat what came before and do not end")
            seen |= keys
            longest = max(longest, len(page))
            offset += len(page)

    def address(self, resource: str, parameters: Sequence[tuple[str, str]]) -> str:
        """Give the URL of the first page of a search, for those who want to ask it themselves."""
        limit = [("limit", str(self.profile.max_limit))] if self.profile.max_limit else []
        return f"{self._url}/{_target(resource, [*parameters, *limit])}"

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
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={transfer_syntax}'
        path, headers = self._path(study, series, instance), {"Accept": accept, **_AS_IT_IS}
        with closing(patiently(lambda: self._checked(path, headers))) as response:
            yield self._instances(response)

    def frames(self, study: str, series: str, instance: str, frames: Sequence[int]) -> list[bytes]:
        """Retrieve frames by their numbers, from 1, as they are stored (PS3.18 10.4.1.1.4)."""
        numbers = ",".join(str(number) for number in frames)
        accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
        path = f"{self._path(study, series, self._uid(instance))}/frames/{numbers}"
        headers = {"Accept": accept, **_AS_IT_IS}
        with closing(patiently(lambda: self._checked(path, headers))) as response:
            return [b"".join(stream.chunks) for stream in self._instances(response)]

    def delete(self, study: str, series: str = "", instance: str = "") -> None:
        """Delete a study, series or instance; raises NotFound when it is not there."""
        with closing(self._send("DELETE", self._path(study, series, instance), {})) as response:
            check(self.name, response)
            self._read(response)

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
        target = _target(path, parameters)
        content = patiently(lambda: self._content(target))
        if content is None:
            return []
        try:
            page = _parsed(content)
        except ValueError as error:
            raise AnswerUnreadable(self.name, "the answer is not JSON") from error
        if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
            raise AnswerUnreadable(self.name, "the answer is not a list of DICOM JSON objects")
        return page

    def _content(self, path: str) -> bytes | None:
        """Get a JSON body, None for 204."""
        with closing(self._checked(path, {"Accept": _JSON})) as response:
            return None if response.status_code == 204 else self._read(response)

    def _checked(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        """Send a GET and give its answer if it is a success; the body is still to come."""
        response = self._send("GET", path, headers)
        try:
            check(self.name, response)
        except ArchiveError:
            response.close()
            raise
        return response

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: Iterable[bytes] | None = None
    ) -> httpx.Response:
        """Send a request, once more after a 401 if the sign-in can be renewed, and along same-origin redirects."""
        url, renewed = f"{self._url}/{path}", False
        for _ in range(_MOST_REDIRECTS):
            sign_in = self._auth.header() if self._auth else ""
            signed = {"Authorization": sign_in} if sign_in else {}
            response = self._exchange(method, url, {**headers, **signed, **self._correlation}, body)
            if response.status_code == 401 and self._auth and not renewed:
                response.close()
                if not self._auth.renew(sign_in):
                    return response
                renewed = True
            elif response.status_code in (307, 308):
                response.close()
                url = self._redirected(url, response.headers.get("Location", ""))
            else:
                return response
        raise AnswerUnreadable(self.name, "too many redirects")

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: Iterable[bytes] | None
    ) -> httpx.Response:
        with archive_errors(self.name):
            # an iterator of its own for each attempt: a repeated body is never an empty one
            content = iter(body) if body is not None else None
            request = self._http.build_request(method, url, headers=headers, content=content)
            response = self._http.send(request, stream=True)
            length = response.headers.get("Content-Length", "")
            if response.status_code == 204 or (
                response.status_code >= 300 and length.isdecimal() and int(length) <= _SMALL
            ):
                response.read()  # a connection is kept only when its answer has been read to the end
        return response

    def _read(self, response: httpx.Response) -> bytes:
        with archive_errors(self.name):
            return response.read()

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        if urlsplit(target)[:2] != urlsplit(url)[:2]:
            raise AnswerUnreadable(self.name, "a redirect leads to another server; set its URL in archives")
        return target

    def _path(self, study: str, series: str, instance: str) -> str:
        path = f"studies/{self._uid(study)}"
        if series or instance:
            path += f"/series/{self._uid(series)}"
        return f"{path}/instances/{self._uid(instance)}" if instance else path

    def _uid(self, uid: str) -> str:
        """Let nothing but a UID into a path; least of all nothing, which would name all there is."""
        if not _UID.fullmatch(uid):
            raise RequestRefused(self.name, "a UID is empty or has characters that no UID has")
        return uid


def _target(path: str, parameters: Sequence[tuple[str, str]]) -> str:
    query = "&".join(f"{quote(key, safe=_SAFE)}={quote(value, safe=_SAFE)}" for key, value in parameters)
    return f"{path}?{query}" if query else path


def _key(entry: Mapping[str, Any]) -> int:
    """Identify an entry of a page by its UIDs; hashed, since a search may bring a million."""
    return hash(tuple([str(entry[tag]) for tag in _UNIQUE if tag in entry]))


def _parsed(content: bytes) -> Any:
    """Read JSON; raises ValueError for all that is wrong with it."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
