"""Make of a fetched instance what was asked for: itself, some of its frames, or what it is without bulk data."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from gateway.dimse.fetch import Fetched
from gateway.dimse.scratch import Scratch
from gateway.dimse.suboperation import rewritten
from gateway.errors import GatewayError
from gateway.translate.composite import FrameRequest
from gateway.translate.frames import extract
from gateway.translate.part10 import FileMeta
from gateway.translate.without_bulk import without_bulk

Derive = Callable[[Fetched, FileMeta, Scratch], Fetched]
"""Makes an instance of another; both files are the caller's to discard."""


def as_it_is(fetched: Fetched, _: FileMeta, __: Scratch) -> Fetched:
    """Give the instance itself."""
    return fetched


def without_bulk_data(fetched: Fetched, meta: FileMeta, scratch: Scratch) -> Fetched:
    """Give the instance without its bulk data (PS3.4 Annex Z)."""

    def write(source: BinaryIO, target: BinaryIO) -> FileMeta:
        source.seek(meta.offset)
        return replace(meta, transfer_syntax=without_bulk(source, meta.transfer_syntax, target), offset=0)

    return rewritten(fetched, write, scratch, derived=True)


def some_frames(request: FrameRequest) -> Derive:
    """Make a new instance of the frames asked for (PS3.4 Annex Y)."""

    def derive(fetched: Fetched, meta: FileMeta, scratch: Scratch) -> Fetched:
        def write(source: BinaryIO, target: BinaryIO) -> FileMeta:
            new = extract(source, meta.transfer_syntax, request, target)
            return replace(meta, sop_instance=new, offset=0)

        return rewritten(fetched, write, scratch, derived=True)

    return derive


def derived(instances: Iterable[Fetched], derive: Derive, scratch: Scratch) -> Iterator[Fetched]:
    """Derive from each instance, whose own file is discarded; what fails is in the result."""
    for fetched in instances:
        if fetched.meta is None:
            yield fetched
            continue
        try:
            made = derive(fetched, fetched.meta, scratch)
        except GatewayError as error:
            made = Fetched(fetched.target, error=error)
        if made is not fetched:
            fetched.discard()
        yield made
