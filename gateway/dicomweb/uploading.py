"""Store many instances: several to a request, requests in parallel, what is there already left out."""

import copy
import os
import random
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.dicomweb.retrieval import Progress
from gateway.dicomweb.stow import Held, Outcome, Upload, conformed_bytes, conformed_file
from gateway.errors import (
    ArchiveBusy,
    ArchiveError,
    Cancelled,
    DataSetError,
    NotFound,
    RequestRefused,
    SignInRefused,
    SpoolBroken,
    TooLarge,
    TranscodingError,
)
from gateway.extent import Extent
from gateway.translate.part10 import Identity, read_file_meta, read_identity
from gateway.translate.profiles import Profile
from gateway.translate.stow_outcomes import Disposition, refused

Source = str | os.PathLike[str] | bytes | Dataset
"""A Part 10 file by its path or as bytes, or a data set; one without File Meta becomes Explicit VR Little Endian."""

_BATCH_BYTES = 32_000_000
_AHEAD = 2  # batches made ready for each thread that sends
_REMEMBERED = 64  # series whose instances are known at a time
_PAUSES = (1.0, 5.0, 15.0)
_LONGEST_PAUSE = 60.0


class State(StrEnum):
    """Say what became of a source."""

    STORED = "stored"
    PRESENT = "present"
    """The archive has an instance under these UIDs; whether it is the same was not looked at."""
    REFUSED = "refused"
    NOT_DICOM = "not DICOM"
    """It is no instance, or a cut one; it was not sent."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Tell what became of a source: its UIDs and size as far as known, and why it is not stored.

    `reason` is the Warning Reason (0008,1196) of what is stored, the Failure Reason (0008,1197) of what is refused.
    `changes` are what was done for the archive's profile to what was sent; the source stays as it is.
    """

    source: Source
    state: State
    study: str = ""
    series: str = ""
    sop_instance: str = ""
    size: int = 0
    reason: int | None = None
    problem: str = ""
    changes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Say whether the archive has it."""
        return self.state in (State.STORED, State.PRESENT)


@dataclass(frozen=True, slots=True)
class _Job:
    source: Source
    upload: Upload | Held
    transfer_syntax: str
    size: int
    changes: tuple[str, ...] = ()

    def told(self, state: State, reason: int | None = None, problem: str = "") -> Uploaded:
        one = self.upload
        uids = one.study, one.series, one.sop_instance
        return Uploaded(self.source, state, *uids, self.size, reason, problem, self.changes)


class Uploading:
    """Run one upload: `store` sends one request, `listed` gives the instances that the archive has of a series."""

    def __init__(
        self,
        archive: str,
        profile: Profile,
        store: Callable[[Sequence[Upload | Held], Progress], list[Outcome]],
        listed: Callable[[str, str], Iterable[str]] | None,
        progress: Progress | None,
        *,
        convert: bool,
    ) -> None:
        self._archive = archive
        self._store = store
        self._listed = listed
        self._profile = profile
        self._convert = convert
        self._progress = progress
        self._known: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()
        self._stop = threading.Event()

    def run(self, sources: Iterable[Source], parallel: int) -> Generator[Uploaded]:
        """Yield what became of each source as soon as it is known."""
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="upload")
        running: set[Future[list[Uploaded]]] = set()
        try:
            for ready in self._batches(sources):
                if isinstance(ready, Uploaded):
                    yield ready
                else:
                    running.add(pool.submit(self._deliver, ready))
                full = len(running) >= parallel * _AHEAD
                done, running = wait(running, None if full else 0, FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            self._stop.set()  # what is being sent breaks off at its next piece
            pool.shutdown(cancel_futures=True)

    def _batches(self, sources: Iterable[Source]) -> Iterator[list[_Job] | Uploaded]:
        batch: list[_Job] = []
        for source in sources:
            try:
                job = _surveyed(source)
            except DataSetError as error:
                yield Uploaded(source, State.NOT_DICOM, problem=str(error))
                continue
            except OSError as error:
                yield Uploaded(source, State.UNREADABLE, problem=error.strerror or "cannot be read")
                continue
            if self._is_present(job.upload):
                yield job.told(State.PRESENT)
                continue
            if batch and sum(one.upload.size for one in batch) + job.upload.size > _BATCH_BYTES:
                yield batch
                batch = []
            batch.append(job)
            if len(batch) >= self._profile.store_batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _is_present(self, upload: Upload | Held) -> bool:
        if self._listed is None:
            return False
        key = (upload.study, upload.series)
        if key not in self._known:
            try:
                self._known[key] = frozenset(self._listed(*key))
            except NotFound:
                self._known[key] = frozenset()
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return upload.sop_instance in self._known[key]

    def _deliver(self, jobs: Sequence[_Job]) -> list[Uploaded]:
        """Make of each what the profile asks for, and send them; raises as `_send` does."""
        told: list[Uploaded] = []
        ready: list[_Job] = []
        with ExitStack() as stack:
            for job in jobs:
                try:
                    ready.append(self._conformed(job, stack) if self._convert else job)
                except OSError as error:
                    told.append(job.told(State.UNREADABLE, problem=f"it cannot be converted: {error.strerror}"))
            return [*told, *self._send(ready)] if ready else told

    def _conformed(self, job: _Job, stack: ExitStack) -> _Job:
        def scratch() -> Path:
            descriptor, name = tempfile.mkstemp(prefix="dicom-gateway-", suffix=".dcm")
            os.close(descriptor)
            path = Path(name)
            stack.callback(path.unlink, missing_ok=True)
            return path

        upload: Upload | Held
        try:
            if isinstance(job.upload, Held):
                upload, changes = conformed_bytes(job.upload, job.transfer_syntax, self._profile)
            else:
                upload, changes = conformed_file(job.upload, job.transfer_syntax, self._profile, scratch)
        except (DataSetError, TranscodingError):
            return job  # what we cannot read the archive may: its verdict counts
        return replace(job, upload=upload, changes=tuple(changes))

    def _send(self, jobs: Sequence[_Job]) -> list[Uploaded]:
        """Send until the archive has judged each; raises the ArchiveError of one that stays in trouble."""
        told: list[Uploaded] = []
        for pause in (*_PAUSES, None):
            asked = pause
            try:
                outcomes = self._store([job.upload for job in jobs], self._passed)
            except (RequestRefused, TooLarge, SpoolBroken) as error:
                if len(jobs) > 1:
                    return [*told, *(one for job in jobs for one in self._send([job]))]
                state = State.UNREADABLE if isinstance(error, SpoolBroken) else State.REFUSED
                return [*told, *(job.told(state, problem=str(error)) for job in jobs)]
            except (SignInRefused, NotFound):
                raise  # each of the others would end the same
            except ArchiveError as error:
                if pause is None:
                    raise
                if isinstance(error, ArchiveBusy) and error.retry_after is not None:
                    asked = max(pause, min(error.retry_after, _LONGEST_PAUSE))
            else:
                judged = [self._judged(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
                again = [job for job, (_, retry) in zip(jobs, judged, strict=True) if retry and pause is not None]
                told += [one for one, retry in judged if not retry or pause is None]
                jobs = again
            if not jobs or asked is None:
                break
            self._rest(asked)
        return told

    def _judged(self, job: _Job, outcome: Outcome) -> tuple[Uploaded, bool]:
        """Tell what became of an instance, and whether to try again."""
        if outcome.stored:
            return job.told(State.STORED, outcome.warning), False
        verdict = refused(self._archive, outcome.reason, outcome.comment)
        if verdict.disposition is Disposition.DUPLICATE:
            return job.told(State.PRESENT), False
        problem = outcome.comment or "the archive refuses the instance"
        return job.told(State.REFUSED, outcome.reason, problem), verdict.disposition is Disposition.RETRY

    def _passed(self, count: int) -> None:
        if self._stop.is_set():
            raise Cancelled("the upload was given up")
        if self._progress is not None:
            self._progress(count)

    def _rest(self, pause: float) -> None:
        if self._stop.wait(pause + random.uniform(0, 0.25)):  # noqa: S311 - not a secret
            raise Cancelled("the upload was given up")


def _surveyed(source: Source) -> _Job:
    """Find the UIDs of a source; raises DataSetError when it is no whole instance, OSError when it cannot be read."""
    content = _written(source) if isinstance(source, Dataset) else source
    if isinstance(content, bytes):
        found, syntax = _identity(BytesIO(content))
        held = Held(content, found.sop_class, found.sop_instance, found.study, found.series)
        return _Job(source, held, syntax, held.size)
    path = Path(content)
    with path.open("rb") as file:
        found, syntax = _identity(file)
    upload = Upload(Extent.of(path), found.sop_class, found.sop_instance, found.study, found.series)
    return _Job(source, upload, syntax, upload.size)


def _identity(file: BinaryIO) -> tuple[Identity, str]:
    meta = read_file_meta(file)
    file.seek(meta.offset)
    found = read_identity(file, meta.transfer_syntax)
    named = {
        "SOP Class UID": found.sop_class,
        "SOP Instance UID": found.sop_instance,
        "Study Instance UID": found.study,
        "Series Instance UID": found.series,
    }
    if missing := [name for name, uid in named.items() if not uid]:
        raise DataSetError(f"it is no instance: it has no {', '.join(missing)}")
    return found, meta.transfer_syntax


def _written(dataset: Dataset) -> bytes:
    """Write a data set as a Part 10 file, without changing it."""
    written = copy.copy(dataset)
    written.file_meta = copy.copy(getattr(dataset, "file_meta", None)) or FileMetaDataset()
    if "TransferSyntaxUID" not in written.file_meta:
        written.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    try:
        written.save_as(file, enforce_file_format=True)
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise DataSetError(f"the data set cannot be written: {type(error).__name__}") from error
    return file.getvalue()
