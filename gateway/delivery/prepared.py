"""Make of an instance what its archive's profile asks for; anything else goes as it came."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.dicomweb.client import Upload
from gateway.dicomweb.stow import conformed_file
from gateway.errors import DataSetError, TranscodingError
from gateway.extent import Extent
from gateway.outbox import Entry
from gateway.translate.profiles import Profile


@dataclass(frozen=True, slots=True)
class Item:
    """Name an instance to deliver: a Part 10 file and what is known of it.

    `attempts` counts the present one. `replaces` says that another object under its UIDs is to be overwritten.
    """

    extent: Extent
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
            extent=entry.extent,
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
    upload = Upload(item.extent, item.sop_class, item.sop_instance, item.study, item.series)
    try:
        upload, changes = conformed_file(upload, item.transfer_syntax, profile, scratch, source_ae=item.peer)
    except (DataSetError, TranscodingError) as error:
        # What we cannot read the archive may: it gets what the peer sent, and its verdict counts.
        _log("sent as it came", item, reason=str(error))
        return upload
    for change in changes:
        _log(change, item)
    return upload


def _log(event: str, item: Item, **more: str) -> None:
    structlog.get_logger("gateway").info(event, instance=item.sop_instance, peer=item.peer, **more)
