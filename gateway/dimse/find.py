"""Answer C-FIND (PS3.4 C.4.1): identifier -> search -> pages -> matching here -> pending responses."""

from collections.abc import Iterator

from pydicom.dataset import Dataset

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
from gateway.translate import dicom_json
from gateway.translate.identifier import decode_identifier, encode_identifier
from gateway.translate.search import Search, group_patients, matches, plan, project


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
    sent = 0
    report.note(level=search.level)
    try:
        with Ahead(session.association, answers(session.archive, search, session.max_scanned)) as batches:
            for batch in batches:
                for match in batch:
                    reply = encode_identifier(
                        project(search, match, retrieve_aet=session.called), context.transfer_syntax
                    )
                    session.association.connection.send(session.association.message(context, command, reply))
                    sent += 1
                    if session.association.cancelled():
                        raise Cancelled("the peer cancelled the query")
    finally:
        report.note(matches=sent)
    return Status(SUCCESS, "")


def answers(archive: Client, search: Search, max_scanned: int) -> Iterator[list[Dataset]]:
    """Yield the matches of a search, page by page; raises ArchiveError, ScanLimitReached."""
    if search.level == "PATIENT":
        # one answer per patient needs all of its studies
        studies = [study for page in _pages(archive, search, max_scanned) for study in page]
        yield group_patients(studies)
        return
    yield from _pages(archive, search, max_scanned)


def _pages(archive: Client, search: Search, max_scanned: int) -> Iterator[list[Dataset]]:
    seen: set[str] = set()
    scanned = 0
    for request in search.requests:
        for page in archive.search(request.resource, request.parameters):
            scanned += len(page)
            if scanned > max_scanned:
                raise ScanLimitReached(f"the query would read more than {max_scanned} entries")
            matching = []
            for entry in page:
                dataset, _ = dicom_json.to_dataset(entry)
                key = _key(dataset, search.level)
                if key in seen or not matches(search, dataset):
                    continue
                seen.add(key)
                matching.append(dataset)
            yield matching


_UNIQUE_KEYS = {
    "PATIENT": ("StudyInstanceUID",),
    "STUDY": ("StudyInstanceUID",),
    "SERIES": ("StudyInstanceUID", "SeriesInstanceUID"),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
}


def _key(dataset: Dataset, level: str) -> str:
    return "/".join(str(dataset.get(keyword, "")) for keyword in _UNIQUE_KEYS[level])
