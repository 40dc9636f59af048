"""Answer C-STORE: fragments stream into a file, the file goes to the archive, its verdict is the status.

The response is sent after the archive confirmed the instance (PS3.4 Annex B); until then nothing is promised,
so a broken association or a failure leaves nothing behind, here or there.
"""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from pathlib import Path

from gateway.dicomweb.client import Outcome, Upload
from gateway.dimse import commands
from gateway.dimse.association import Message, Sink
from gateway.dimse.commands import text
from gateway.dimse.session import Report, Session, operation
from gateway.errors import DataSetError, GatewayError, IdentityMismatch, InstanceRefused, SpoolFull
from gateway.status import DUPLICATE_SOP_INSTANCE, SUCCESS, Service, Status, status_of
from gateway.translate.part10 import Identity, file_header, read_file_meta, read_identity

_MOST_VECTORS = 512
_PIECE = 1 << 18
_LONGEST_HEADER = 1 << 16
_ALREADY_STORED = 45070  # Azure's Failure Reason for a (study, series, instance) that it has


class Receiver:
    """Write an instance to a file as its fragments come; a full disk is remembered and told at the end."""

    def __init__(self, folder: Path, header: bytes) -> None:
        self.error: GatewayError | None = None
        self.header_size = len(header)
        self.size = 0
        try:
            descriptor, name = tempfile.mkstemp(suffix=".dcm", dir=folder)
        except OSError as error:
            self.error = SpoolFull(f"no file can be made in the spool: {error.strerror}")
            self._descriptor, self.path = -1, folder
            return
        self._descriptor, self.path = descriptor, Path(name)
        self.write([memoryview(header)])

    def write(self, pieces: list[memoryview]) -> None:
        """Append fragments of the data set."""
        if self.error is not None:
            return
        try:
            for first in range(0, len(pieces), _MOST_VECTORS):
                self._write(pieces[first : first + _MOST_VECTORS])
        except OSError as error:
            self.error = SpoolFull(f"the spool cannot be written: {error.strerror}")
            self.discard()

    def _write(self, pieces: list[memoryview]) -> None:
        wanted = sum(map(len, pieces))
        written = os.writev(self._descriptor, pieces)
        if written < wanted:  # a signal or a disk that fills up: the rest in one piece, which then says why
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self.size += wanted

    def identity(self, transfer_syntax: str) -> Identity:
        """Read the UIDs of what arrived; raises DataSetError, or the error met while writing."""
        if self.error is not None:
            raise self.error
        if self.size == self.header_size:
            raise DataSetError("the data set is empty")
        with self.path.open("rb") as file:
            file.seek(self.header_size)
            return read_identity(file, transfer_syntax)

    def discard(self) -> None:
        """Close and remove the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


def receiver(session: Session, message: Message) -> Receiver:
    """Make the sink for the data set of a C-STORE request."""
    command = message.command
    header = file_header(
        text(command, "AffectedSOPClassUID"),
        text(command, "AffectedSOPInstanceUID"),
        message.context.transfer_syntax,
        source_ae=session.calling,
    )
    sink = Receiver(session.incoming, header)
    usage = shutil.disk_usage(session.incoming)
    if sink.error is None and usage.used > usage.total * session.config.spool.high_water:
        sink.discard()
        sink.error = SpoolFull("the spool's disk is above its high-water mark")
    return sink


def abandon(sink: Sink | None) -> None:
    """Remove what an association that broke off left half received."""
    if isinstance(sink, Receiver):
        sink.discard()


def answer(session: Session, message: Message) -> None:
    """Answer a C-STORE request whose data set has been received."""
    sink = message.sink
    with operation(session, "C-STORE") as report:
        try:
            status = _store(session, message, sink, report)
        except GatewayError as error:
            status = status_of(error, Service.STORE)
            report.note(reason=str(error))
        finally:
            abandon(sink)
        report.note(status=status.code, instance=text(message.command, "AffectedSOPInstanceUID"))
        session.association.send(message.context, commands.response(message.command, status.code, status.comment))


def _store(session: Session, message: Message, sink: Sink | None, report: Report) -> Status:
    if not isinstance(sink, Receiver):
        raise DataSetError("the request has no data set")
    identity = sink.identity(message.context.transfer_syntax)
    _compare(identity, message)
    report.note(bytes=sink.size - sink.header_size)
    upload = Upload(
        path=sink.path,
        size=sink.size,
        sop_class=identity.sop_class,
        sop_instance=identity.sop_instance,
        study=identity.study,
        series=identity.series,
    )
    (outcome,) = session.archive.store([upload])
    if outcome.reason == _ALREADY_STORED:
        same = _same_as_archived(session, upload, sink.header_size)
        report.note(duplicate="the same" if same else "another under the same UIDs, refused")
        return Status(SUCCESS, "") if same else Status(DUPLICATE_SOP_INSTANCE, "another instance has these UIDs")
    return _status(outcome, session.archive.name, report)


def _compare(identity: Identity, message: Message) -> None:
    """Insist that command set, presentation context and data set name the same instance (PS3.4 B.2.3)."""
    if not (identity.study and identity.series and identity.sop_instance and identity.sop_class):
        raise DataSetError("Study, Series, SOP Instance or SOP Class UID is missing from the data set")
    if identity.sop_instance != text(message.command, "AffectedSOPInstanceUID"):
        raise IdentityMismatch("SOP Instance UID of data set and command differ")
    classes = {
        identity.sop_class,
        text(message.command, "AffectedSOPClassUID"),
        message.context.abstract_syntax,
    }
    if len(classes) != 1:
        raise IdentityMismatch("SOP Class UID of data set, command and presentation context differ")


def _status(outcome: Outcome, archive: str, report: Report) -> Status:
    if outcome.stored:
        if outcome.warning is not None:
            report.note(warning=f"{outcome.warning:04X}H")
        # an archive's finding is logged; a warning status would make some modalities keep and resend
        return Status(SUCCESS, "")
    raise InstanceRefused(archive, outcome.reason or 0x0110, outcome.comment)


def _same_as_archived(session: Session, upload: Upload, offset: int) -> bool:
    """Say whether the archive holds the same data set; File Meta, which differs by its way here, left out."""
    ours = hashlib.sha256()
    with upload.path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(_PIECE):
            ours.update(piece)
    theirs = hashlib.sha256()
    with session.archive.retrieve(upload.study, upload.series, upload.sop_instance) as instances:
        for instance in instances:
            head, chunks = b"", iter(instance.chunks)
            for chunk in chunks:
                head += chunk
                if len(head) >= _LONGEST_HEADER:
                    break
            start = read_file_meta(io.BytesIO(head)).offset
            theirs.update(head[start:])
            for chunk in chunks:
                theirs.update(chunk)
    return ours.digest() == theirs.digest()
