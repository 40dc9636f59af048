"""Make of an instance what its archive's profile asks for; anything else goes as it came."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dicomweb.client import Upload
from gateway.errors import DataSetError, TranscodingError
from gateway.outbox import Entry
from gateway.translate import patient_id
from gateway.translate.part10 import file_header, read_file_meta
from gateway.translate.profiles import Profile
from gateway.translate.transcode import convert

_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Item:
    """Name an instance to deliver: a Part 10 file of `size` bytes and what is known of it.

    `attempts` counts the present one. `replaces` says that another object under its UIDs is to be overwritten.
    """

    path: Path
    size: int
    study: str
    series: str
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    peer: str = ""
    attempts: int = 1
    replaces: bool = False

    @classmethod
    def of(cls, entry: Entry) -> "Item":
        """Make an item of an entry of the outbox."""
        return cls(
            path=entry.path,
            size=entry.size,
            study=entry.study,
            series=entry.series,
            sop_class=entry.sop_class,
            sop_instance=entry.sop_instance,
            transfer_syntax=entry.transfer_syntax,
            peer=entry.peer,
            attempts=entry.attempts,
            replaces=entry.replaces,
        )


@contextlib.contextmanager
def prepared(items: Sequence[Item], profile: Profile, scratch: Callable[[], Path]) -> Iterator[list[Upload]]:
    """Give an upload for each item; files that had to be written are removed at the end.

    Raises OSError when a file cannot be read or written.
    """
    with contextlib.ExitStack() as stack:

        def written() -> Path:
            path = scratch()
            stack.callback(path.unlink, missing_ok=True)
            return path

        yield [_upload(item, profile, written) for item in items]


def _upload(item: Item, profile: Profile, scratch: Callable[[], Path]) -> Upload:
    path = item.path
    try:
        if profile.require_patient_id:
            path = _with_patient_id(item, path, scratch)
        if profile.explicit_vr_only and item.transfer_syntax == ImplicitVRLittleEndian:
            path = _explicit(item, path, scratch)
    except (DataSetError, TranscodingError) as error:
        # What we cannot read the archive may: it gets what the peer sent, and its verdict counts.
        path = item.path
        _log("sent as it came", item, reason=str(error))
    size = item.size if path is item.path else path.stat().st_size
    return Upload(path, size, item.sop_class, item.sop_instance, item.study, item.series)


def _with_patient_id(item: Item, path: Path, scratch: Callable[[], Path]) -> Path:
    with path.open("rb") as source:
        source.seek(read_file_meta(source).offset)
        absent = patient_id.missing(source, item.transfer_syntax)
        if absent is None:
            return path
        at, element = absent
        source.seek(0)
        written = scratch()
        with written.open("wb") as target:
            while at > 0:
                at -= target.write(source.read(min(at, _PIECE)))
            target.write(element)
            shutil.copyfileobj(source, target, _PIECE)
    _log("empty Patient ID added", item)
    return written


def _explicit(item: Item, path: Path, scratch: Callable[[], Path]) -> Path:
    written = scratch()
    with path.open("rb") as source, written.open("wb") as target:
        source.seek(read_file_meta(source).offset)
        target.write(file_header(item.sop_class, item.sop_instance, ExplicitVRLittleEndian, source_ae=item.peer))
        convert(source, ImplicitVRLittleEndian, target, ExplicitVRLittleEndian)
    _log("converted to Explicit VR Little Endian", item)
    return written


def _log(event: str, item: Item, **more: str) -> None:
    structlog.get_logger("gateway").info(event, instance=item.sop_instance, peer=item.peer, **more)
