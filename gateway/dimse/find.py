"""Answer C-FIND (PS3.4 C.4.1): identifier -> search -> pages -> matching here -> pending responses."""

from collections.abc import Iterator
from typing import Any

from gateway.dicomweb.client import Client
from gateway.dimse import commands
from gateway.dimse.ahead import Ahead
from gateway.dimse.association import Message
from gateway.dimse.negotiation import FIND_MODELS
from gateway.dimse.session import Report, Session, operation
from gateway.errors import Cancelled, GatewayError, PeerError, ScanLimitReached
from gateway.status import (
    PENDING,
    PENDING_WITH_UNSUPPORTED_KEYS,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    Service,
    Status,
    status_of,
)
from gateway.translate.computed import Computation, compute, further_request
from gateway.translate.identifier import decode_identifier
from gateway.translate.matching import text_of
from gateway.translate.responses import Responder
from gateway.translate.search import Search, group_patients, matches, plan

Row = dict[str, Any]
"""One entity in the DICOM JSON model."""


def answer(session: Session, message: Message) -> None:
    """Answer a C-FIND request with a pending response for each match and a final one."""
    with operation(session, "C-FIND") as report:
        try:
            status = _find(session, message, report)
        except PeerError:
            raise  # nobody is left to answer
        except Cancelled as error:
            status = status_of(error, Service.FIND)
        except GatewayError as error:
            status = status_of(error, Service.FIND)
            report.note(reason=str(error))
        report.note(status=status.code)
        session.association.send(message.context, commands.response(message.command, status.code, status.comment))


def _find(session: Session, message: Message, report: Report) -> Status:
    context = message.context
    if context.abstract_syntax not in FIND_MODELS:
        return Status(SOP_CLASS_NOT_SUPPORTED, "the context is not for queries")
    identifier = decode_identifier(message.data, context.transfer_syntax, default_charset=session.peer.character_set)
    search = plan(
        identifier,
        FIND_MODELS[context.abstract_syntax],
        session.archive.profile,
        session.negotiated_for(message),
    )
    pending = PENDING_WITH_UNSUPPORTED_KEYS if search.unsupported_keys else PENDING
    command = commands.encode(
        {
            **commands.response(message.command, pending),
            "CommandDataSetType": commands.DATA_SET_PRESENT,
        }
    )
    responder = Responder(search, retrieve_aet=session.called, transfer_syntax=context.transfer_syntax)
    sent = 0
    report.note(level=search.level)
    try:
        with Ahead(session.association, answers(session.archive, search, session.route.max_scanned)) as batches:
            for batch in batches:
                for match in batch:
                    reply = responder.encode(match)
                    session.association.connection.send(session.association.message(context, command, reply))
                    sent += 1
                    if session.association.cancelled():
                        raise Cancelled("the peer cancelled the query")
    finally:
        report.note(matches=sent)
    return Status(SUCCESS, "")


def answers(archive: Client, search: Search, max_scanned: int) -> Iterator[list[Row]]:
    """Yield the matches of a search, page by page, with what is computed from the entities below them.

    Raises ArchiveError, ScanLimitReached.
    """
    for page in _matches(archive, search, max_scanned):
        for row in page:
            for way in search.computations:
                row.update(compute(way, row, _below(archive, way, row)))
        yield page


def _matches(archive: Client, search: Search, max_scanned: int) -> Iterator[list[Row]]:
    if search.level == "PATIENT":
        # one answer per patient needs all of its studies
        yield group_patients(study for page in _pages(archive, search, max_scanned) for study in page)
        return
    yield from _pages(archive, search, max_scanned)


def _below(archive: Client, way: Computation, row: Row) -> Iterator[Row]:
    request = further_request(way, row, archive.profile)
    if request is not None:
        for page in archive.search(request.resource, request.parameters):
            yield from page


def _pages(archive: Client, search: Search, max_scanned: int) -> Iterator[list[Row]]:
    unique = _STUDY_KEYS if search.studies_first else _UNIQUE_KEYS[search.level]
    seen: set[tuple[str, ...]] = set()
    scanned = 0
    for request in search.requests:
        for page in archive.search(request.resource, request.parameters):
            scanned += len(page)
            if scanned > max_scanned:
                raise ScanLimitReached(f"the query would read more than {max_scanned} entries")
            matching = []
            for row in page:
                key = tuple(text_of(row, tag) for tag in unique)
                repeated = key in seen and key[-1]  # rows whose UID is malformed are not the same entity
                if not repeated and matches(search, row):
                    seen.add(key)
                    matching.append(row)
            yield matching


_STUDY_KEYS = (0x0020000D,)
_UNIQUE_KEYS = {
    "PATIENT": _STUDY_KEYS,
    "STUDY": _STUDY_KEYS,
    "SERIES": (*_STUDY_KEYS, 0x0020000E),
    "IMAGE": (*_STUDY_KEYS, 0x0020000E, 0x00080018),
}
