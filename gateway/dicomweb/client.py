"""Ask a DICOMweb archive: STOW-RS, QIDO-RS, WADO-RS and DELETE (PS3.18 chapter 10), synchronously."""

import copy
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from gateway.dicomweb.auth import Auth
from gateway.dicomweb.faults import check, refusal, skew
from gateway.dicomweb.observation import Observe
from gateway.dicomweb.retrieval import Instance, Instances, Progress
from gateway.dicomweb.stow import Body, Held, Outcome, Upload, outcomes
from gateway.dicomweb.transport import JSON, Transport, parsed, tls
from gateway.dicomweb.uploading import Source, Uploaded, Uploading
from gateway.errors import AnswerUnreadable, ConfigError, Fault, RequestRefused
from gateway.translate.dicom_json import to_dataset
from gateway.translate.profiles import PROFILES, Profile

__all__ = ["Client", "Held", "Instance", "Outcome", "Upload"]

_UID = re.compile(r"[0-9][0-9.]{0,63}")  # a digit first: `..` would climb the path
_RESOURCE = re.compile(
    "studies|series|instances|studies/UID/(series|instances)|studies/UID/series/UID/instances".replace(
        "UID", _UID.pattern
    )
)
_ANSWERS = (200, 202, 400, 409)  # to STOW-RS; Orthanc's 400 too says what it stored before the part it refuses
_MOST_REPEATS = 50  # pages in a row without a new entry
_UNIQUE = ("0020000D", "0020000E", "00080018")
_AS_IT_IS = {"Accept-Encoding": "identity"}  # to compress pixels takes Orthanc 15 times as long as to send them

Changed = Callable[[Sequence[tuple[str, str, str]]], None]
"""Is told after a STOW or DELETE what may have changed: study, series and instance of each, "" for all below."""


class Client:
    """Ask one archive; safe to use from several threads. Times in seconds.

    `url` is what comes before `/studies`; `profile` says what kind of archive it is (`azure`, `google`, `orthanc`,
    `dcm4chee`, `aws`, `standard`). `ca` names a PEM file with the authorities to believe, `certificate` and `key`
    what to prove ourselves with. `name` stands in errors, by default the URL's host. Making one raises ConfigError
    for a URL or a profile that there is not, and when such a file cannot be used.

    Every method raises ArchiveError when the archive does not do what was asked; a failure is never an empty result.
    """

    def __init__(  # noqa: PLR0913 - all by keyword, each an option of the configuration
        self,
        url: str,
        *,
        name: str = "",
        profile: Profile | str = PROFILES["standard"],
        auth: Auth | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        ca: str | os.PathLike[str] | None = None,
        certificate: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        connections: int = 8,
        connect_timeout: float = 5,
        read_timeout: float = 30,
        proxy: str | None = None,
        observe: Observe = lambda _operation, _outcome, _seconds: None,
        changed: Changed = lambda _uids: None,
    ) -> None:
        self.name = name = name or urlsplit(url).netloc
        self._changed = changed
        self.profile = _checked(url, profile)
        files = (Path(file) if file is not None else None for file in (ca, certificate, key))
        self._transport = Transport(
            url,
            name=name,
            auth=auth,
            headers=headers,
            verify=tls(url, name, *files),
            connections=connections,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            proxy=proxy,
            observe=observe,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.name!r}, profile={self.profile.name!r})"

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def correlated(self, request_id: str) -> "Client":
        """Give this client, on the same connections, with an X-Request-ID on every request."""
        twin = copy.copy(self)
        twin._transport = self._transport.correlated(request_id)  # noqa: SLF001 - its own class
        return twin

    def like(self, profile: Profile) -> "Client":
        """Give this client, on the same connections, that takes the archive for one of this profile."""
        twin = copy.copy(self)
        twin.profile = profile
        return twin

    def clock_skew(self) -> float | None:
        """Ask how many seconds the archive's clock is ahead of ours, None when its answers have no date."""
        with closing(self._transport.get("studies?limit=1", {"Accept": JSON})) as response:
            self._transport.read(response)
            return skew(response.headers.get("Date", ""))

    # store

    def upload(
        self,
        sources: Iterable[Source] | Source,
        *,
        study: str = "",
        skip_present: bool = True,
        convert: bool = True,
        progress: Progress | None = None,
        parallel: int = 4,
    ) -> Generator[Uploaded]:
        """Store files by path, Part 10 bytes or data sets, and yield what became of each when it is known.

        One may stand alone. Nothing is sent before what this gives is iterated over, to its end for all to be sent.
        What is no instance or is refused is told and the rest goes on; an archive that is down is asked again for
        a while, then its ArchiveError is raised, and the same call goes on where this one ended. `study` has the
        archive refuse instances of another one (PS3.18 10.5.1). With `skip_present` an instance whose UIDs the
        archive has is not sent. With `convert` what is sent is made what the profile asks for: of Implicit VR
        Explicit VR Little Endian, an absent Patient ID empty; each `Uploaded` tells of it. `progress` is called with
        bytes sent, by up to `parallel` threads at a time.
        """
        uploading = Uploading(
            self.name,
            self.profile,
            lambda uploads, passed: self.store(uploads, study=study, progress=passed),
            self._listed if skip_present else None,
            progress,
            convert=convert,
        )
        if isinstance(sources, (str, os.PathLike, bytes, Dataset)):
            return uploading.run([sources], parallel)
        return uploading.run(sources, parallel)

    def store(
        self, uploads: Sequence[Upload | Held], *, study: str = "", progress: Progress | None = None
    ) -> list[Outcome]:
        """Store instances in one request and give one outcome for each, in order (PS3.18 10.5).

        The outcome is read from the answer's sequences whatever the HTTP status; an ArchiveError means that
        nothing is known of any of them. Never repeated here: the caller decides. Raises SpoolBroken when a
        file cannot be read.
        """
        path = f"studies/{self._uid(study)}" if study else "studies"
        body = Body.of(uploads, progress)
        headers = {
            "Accept": JSON,
            "Content-Type": body.content_type,
            "Content-Length": str(body.size),
        }
        changing = self._changing([(one.study, one.series, one.sop_instance) for one in uploads])
        with changing, closing(self._transport.send("POST", path, headers, body)) as response:
            status = response.status_code
            if status not in _ANSWERS:
                raise refusal(self.name, response)
            content = self._transport.read(response)
        try:
            return outcomes(uploads, parsed(content))
        except ValueError as error:
            kind = RequestRefused if status >= 400 else AnswerUnreadable
            raise kind(self.name, f"HTTP {status} without a STOW answer", http_status=status) from error

    # search

    def studies(self, *, fields: Iterable[str] = (), **matches: str) -> Iterator[Dataset]:
        """Search studies and yield each once, as a data set in ISO_IR 192.

        `matches` are keywords and values, as in `PatientID="ID1"` or `StudyDate="20240101-20240131"`, matched as
        the archive matches; `fields` are keywords to have besides what it returns on its own.
        """
        return self._found("studies", fields, matches)

    def series(self, study: str = "", *, fields: Iterable[str] = (), **matches: str) -> Iterator[Dataset]:
        """Search series, all or those of a study, as `studies` does."""
        return self._found(f"{self._path(study, '', '')}/series" if study else "series", fields, matches)

    def instances(
        self, study: str = "", series: str = "", *, fields: Iterable[str] = (), **matches: str
    ) -> Iterator[Dataset]:
        """Search instances, all or those of a study or series, as `studies` does."""
        below = f"{self._path(study, series, '')}/" if study or series else ""
        return self._found(f"{below}instances", fields, matches)

    def matches(self, resource: str, parameters: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """Yield every match of a search once, in the DICOM JSON model (PS3.18 F).

        Raises RequestRefused at once for a keyword that there is not: some archives answer it with all they have.
        """
        given = list(parameters)
        self._require_keywords(given)
        return self._once(resource, given)

    def search(
        self, resource: str, parameters: Iterable[tuple[str, str]], *, first_page: int | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield page after page of a search until the archive has no more (PS3.18 10.6).

        A short page is not the last one, and the next begins behind what came, not behind what was asked for:
        an archive may cap its pages silently. Repeats between pages are the caller's to drop: new entries push
        known ones back, whole pages when there are many. Two pages in a row of nothing but repeats end the search
        when they are short, since behind the end of an archive that goes on growing there is no other, or when each
        has all that came before, since such an archive does not page. Full ones do not, and raise AnswerUnreadable
        when they have no end: what follows is not known. The first page has `first_page` entries at most, the others
        as many as the profile allows.
        """
        if not _RESOURCE.fullmatch(resource):
            raise RequestRefused(self.name, "there is no such resource to search")
        most, offset = self.profile.max_limit, 0
        limit = min(first_page or most, most)
        given, seen = list(parameters), set[int]()
        longest = stale = ending = 0
        while ending < 2:
            paging = [("limit", str(limit)), ("offset", str(offset))] if limit else []
            page = self._transport.json(resource, [*given, *paging])
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
            limit = most

    def address(self, resource: str, parameters: Sequence[tuple[str, str]]) -> str:
        """Give the URL of the first page of a search, for those who want to ask it themselves."""
        limit = [("limit", str(self.profile.max_limit))] if self.profile.max_limit else []
        return self._transport.address(resource, [*parameters, *limit])

    # retrieve

    def retrieve(self, study: str, series: str = "", instance: str = "", *, transfer_syntax: str = "*") -> Instances:
        """Stream the instances of a study, series or one instance; `*` asks for them as they are stored.

        Iterate over what comes; each is to be used before the next. In a with block what is left is given up.
        """
        accept = f'multipart/related; type="application/dicom"; transfer-syntax={transfer_syntax}'
        path, headers = self._path(study, series, instance), {"Accept": accept, **_AS_IT_IS}
        return Instances(self._transport, lambda: self._transport.get(path, headers))

    def frames(self, study: str, series: str, instance: str, frames: Iterable[int]) -> list[bytes]:
        """Retrieve frames by their numbers, from 1, as they are stored (PS3.18 10.4.1.1.4)."""
        numbers = ",".join(str(number) for number in frames)
        accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
        path = f"{self._path(study, series, self._uid(instance))}/frames/{numbers}"
        headers = {"Accept": accept, **_AS_IT_IS}
        with Instances(self._transport, lambda: self._transport.get(path, headers)) as parts:
            return [part.read() for part in parts]

    def attributes(self, study: str, series: str = "", instance: str = "") -> list[Dataset]:
        """Retrieve the metadata of a study, series or instance as data sets in ISO_IR 192, without bulk data."""
        return [to_dataset(model)[0] for model in self.metadata(study, series, instance)]

    def metadata(self, study: str, series: str = "", instance: str = "") -> list[dict[str, Any]]:
        """Retrieve the metadata of a study, series or instance in the DICOM JSON model (PS3.18 10.4.1.1.2)."""
        page = self._transport.json(self._path(study, series, instance) + "/metadata", [])
        if not page:
            raise AnswerUnreadable(self.name, "metadata without content")
        return page

    # delete

    def delete(self, study: str, series: str = "", instance: str = "") -> None:
        """Delete a study, series or instance; raises NotFound when it is not there."""
        path, changing = self._path(study, series, instance), self._changing([(study, series, instance)])
        with changing, closing(self._transport.send("DELETE", path, {})) as response:
            check(self.name, response)
            self._transport.read(response)

    @contextmanager
    def _changing(self, changed: Sequence[tuple[str, str, str]]) -> Iterator[None]:
        """Tell of the changes at the end, however that comes: a request without an answer may have changed them."""
        try:
            yield
        finally:
            self._changed(changed)

    def _listed(self, study: str, series: str) -> Iterator[str]:
        """Give the SOP Instance UIDs of a series."""
        for found in self.instances(study, series):
            yield str(found.get("SOPInstanceUID", ""))

    def _found(self, resource: str, fields: Iterable[str], matches: Mapping[str, str]) -> Iterator[Dataset]:
        included = ",".join(fields)
        parameters = [*matches.items(), *([("includefield", included)] if included else [])]
        return (to_dataset(entry)[0] for entry in self.matches(resource, parameters))

    def _require_keywords(self, parameters: Iterable[tuple[str, str]]) -> None:
        for key, value in parameters:
            for keyword in value.split(",") if key == "includefield" else (key,):
                # what does not begin like one is a tag, or an archive's option
                if keyword[:1].isupper() and "." not in keyword and tag_for_keyword(keyword) is None:
                    raise RequestRefused(self.name, f"{keyword} is no attribute's keyword")

    def _once(self, resource: str, parameters: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        seen = set[int]()
        for page in self.search(resource, parameters):
            for entry in page:
                key = _key(entry)
                if key not in seen:
                    seen.add(key)
                    yield entry

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


def _checked(url: str, profile: Profile | str) -> Profile:
    """Give the profile by its name; raises ConfigError for that and for a URL that is none."""
    address, faults = urlsplit(url), list[Fault]()
    if address.scheme not in ("http", "https") or not address.hostname:
        faults.append(Fault("url", "has to begin with http:// or https:// and a host"))
    if isinstance(profile, str) and profile not in PROFILES:
        faults.append(Fault("profile", f"{profile!r} is not one of: {', '.join(PROFILES)}"))
    if faults:
        raise ConfigError("the client", tuple(faults))
    return PROFILES[profile] if isinstance(profile, str) else profile


def _key(entry: Mapping[str, Any]) -> int:
    """Identify an entry of a page by its UIDs; hashed, since a search may bring a million."""
    return hash(tuple([str(entry[tag]) for tag in _UNIQUE if tag in entry]))
