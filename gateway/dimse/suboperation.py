"""Do one C-STORE sub-operation: fit the instance to what the peer accepted, send it, await the response."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO

from gateway.dicomweb.client import Client
from gateway.dimse import commands
from gateway.dimse.association import Association, Context
from gateway.dimse.fetch import Fetched, fetch_instance
from gateway.dimse.scratch import Scratch
from gateway.errors import GatewayError, TranscodingError
from gateway.translate.part10 import FileMeta
from gateway.translate.profiles import EXPLICIT_VR_LITTLE_ENDIAN
from gateway.translate.transcode import accepts, convert


def contexts_for(association: Association, sop_class: str) -> dict[str, Context]:
    """Give, by transfer syntax, the contexts of a SOP class in which the peer took the SCP role."""
    return {
        context.transfer_syntax: context
        for context in association.contexts.values()
        if context.abstract_syntax == sop_class and context.peer_is_scp
    }


def fit(archive: Client, fetched: Fetched, accepted: Sequence[str], scratch: Scratch) -> Fetched:
    """Give the instance in a transfer syntax that is accepted, in another file if it had to be converted.

    What cannot be converted here is asked from the archive where its profile says that it can do more. Raises the
    error of an instance that was not fetched, TranscodingError, SpoolBroken; the caller discards both files.
    """
    meta = _meta(fetched)
    stored = meta.transfer_syntax
    if stored in accepted:
        return fetched
    chosen = accepts(stored, accepted)
    problem = TranscodingError(
        f"stored as {stored}; the peer accepted {', '.join(accepted) or 'no context of its SOP class'}"
    )
    if chosen is not None:
        try:
            return _converted(fetched, chosen, scratch)
        except TranscodingError as error:
            problem = error
    return _converted_by_archive(archive, fetched, accepted, scratch, problem)


def _meta(fetched: Fetched) -> FileMeta:
    if fetched.error is not None:
        raise fetched.error
    if fetched.meta is None or fetched.content is None:
        raise GatewayError("there is no file to send")
    return fetched.meta


def _converted(fetched: Fetched, syntax: str, scratch: Scratch) -> Fetched:
    """Convert a file; raises TranscodingError, SpoolBroken."""
    meta = _meta(fetched)

    def write(source: BinaryIO, target: BinaryIO) -> FileMeta:
        source.seek(meta.offset)
        convert(source, meta.transfer_syntax, target, syntax)
        return replace(meta, transfer_syntax=syntax, offset=0)

    return rewritten(fetched, write, scratch)


def rewritten(
    fetched: Fetched, write: Callable[[BinaryIO, BinaryIO], FileMeta], scratch: Scratch, *, derived: bool = False
) -> Fetched:
    """Let `write` make another file of an instance's and say what it is; raises what it raises, and SpoolBroken."""
    if fetched.content is None:
        raise GatewayError("there is no file to send")
    made: list[FileMeta] = []
    with fetched.content.open() as source:
        content = scratch.write(lambda target: made.append(write(source, target)))
    return replace(fetched, content=content, meta=made[0], derived=derived)


def _converted_by_archive(
    archive: Client, fetched: Fetched, accepted: Sequence[str], scratch: Scratch, problem: TranscodingError
) -> Fetched:
    """Ask the archive for Explicit VR Little Endian; raises `problem` when it cannot do it either."""
    chosen = accepts(EXPLICIT_VR_LITTLE_ENDIAN, accepted)
    if fetched.derived or chosen is None or EXPLICIT_VR_LITTLE_ENDIAN not in archive.profile.transcodes:
        raise problem
    asked = fetch_instance(archive, fetched.target, scratch, EXPLICIT_VR_LITTLE_ENDIAN)
    if asked.meta is None or asked.meta.transfer_syntax != EXPLICIT_VR_LITTLE_ENDIAN:
        asked.discard()
        raise TranscodingError(f"{problem}; the archive does not convert it") from asked.error
    if chosen == EXPLICIT_VR_LITTLE_ENDIAN:
        return asked
    try:
        return _converted(asked, chosen, scratch)
    finally:
        asked.discard()


def store(
    association: Association,
    fetched: Fetched,
    originator: Mapping[str, int | str],
    timeout: float,
    tick: Callable[[], None] = lambda: None,
) -> int:
    """Send an instance in the context for its class and transfer syntax and give its C-STORE status.

    `tick` is called twice a second while the response is awaited; what it raises abandons the response.
    """
    meta = _meta(fetched)
    context = contexts_for(association, meta.sop_class)[meta.transfer_syntax]
    message_id = association.next_message_id()
    command: dict[str, int | str] = {
        "CommandField": commands.C_STORE_RQ,
        "MessageID": message_id,
        "AffectedSOPClassUID": meta.sop_class,
        "AffectedSOPInstanceUID": meta.sop_instance,
        "Priority": 0,
        **originator,
    }
    if fetched.content is None:
        raise GatewayError("there is no file to send")
    if fetched.content.data is not None:
        association.send(context, command, memoryview(fetched.content.data)[meta.offset :])
    else:
        with fetched.content.open() as file:
            file.seek(meta.offset)
            association.send_stream(context, command, file, fetched.size - meta.offset)
    return commands.status(association.response_to(message_id, timeout, tick).command)
