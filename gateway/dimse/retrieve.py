"""Answer C-MOVE and C-GET: expand by QIDO, fetch by WADO, send as C-STORE sub-operations (PS3.4 C.4.2, C.4.3)."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import structlog
from pydicom.dataset import Dataset

from gateway.cache import RecentObjects
from gateway.dimse import commands
from gateway.dimse.ahead import Ahead
from gateway.dimse.association import Message
from gateway.dimse.commands import number, text
from gateway.dimse.derive import Derive, as_it_is, derived, some_frames, without_bulk_data
from gateway.dimse.destination import Destination
from gateway.dimse.expansion import Expansion, Series, Target
from gateway.dimse.fetch import Fetch, Fetched
from gateway.dimse.negotiation import (
    COMPOSITE_GET,
    COMPOSITE_MOVE,
    GET_MODELS,
    GETS,
    MOVE_MODELS,
    MOVES,
    WITHOUT_BULK_GET,
)
from gateway.dimse.progress import Outcome, Progress
from gateway.dimse.scan import Row, Scan
from gateway.dimse.session import Report, Session, operation
from gateway.dimse.suboperation import contexts_for, fit, store
from gateway.dimse.waiting import waiting
from gateway.errors import (
    AnswerUnreadable,
    Cancelled,
    DestinationUnknown,
    DestinationUnreachable,
    FramesError,
    GatewayError,
    PeerError,
)
from gateway.status import CANCEL, PENDING, SOP_CLASS_NOT_SUPPORTED, Service, Status, status_of
from gateway.translate.composite import read_composite
from gateway.translate.identifier import decode_identifier, encode_identifier
from gateway.translate.levels import IMAGE, SERIES, STUDY, UNIQUE_KEYS
from gateway.translate.matching import text_of
from gateway.translate.search import Model, Negotiated, Search, expand_plan, instances_of

log = structlog.get_logger("gateway.dimse")

_FIRST_PAGE = 20  # instances; their fetching begins while the archive looks for the others
_FOR_EARLY = 3  # connections to an archive: two of them are for searches
_OUTCOMES = 512  # that may wait to be counted: who sends does not wait for who answers
_PENDING_EVERY = 0.05  # seconds
_LAST_CHANCE = 0.7  # seconds that a sub-operation under way may go on after a cancel


@dataclass(frozen=True, slots=True)
class Plan:
    """Say which instances are wanted, and what is made of each."""

    search: Search
    derive: Derive = as_it_is


def answer(session: Session, message: Message) -> None:
    """Answer a C-MOVE or C-GET request."""
    is_move = number(message.command, "CommandField") == commands.C_MOVE_RQ
    service = Service.MOVE if is_move else Service.GET
    with operation(session, service.value) as report:
        expansion = Expansion((), whole_series=False)
        progress = Progress(expansion)
        try:
            plan = _plan(session, message, service, report)
            if isinstance(plan, Status):
                status = plan
            else:
                whole = _whole_series(session, plan.search)
                early = _early(session, plan.search) if whole else None
                expansion = Expansion(_pages(session, plan.search), whole_series=whole, early=early)
                progress = Progress(expansion)
                expansion.start()
                run = _move if is_move else _get
                status = run(session, message, expansion, progress, plan.derive)
        except PeerError:
            raise  # nobody is left to answer
        except Cancelled:
            status = Status(CANCEL, "cancelled")
        except GatewayError as error:
            status = status_of(error, service)
            report.note(reason=str(error))
        finally:
            expansion.stop()
        report.note(
            status=status.code,
            completed=progress.completed,
            failed=progress.failed,
            warning=progress.warning,
            bytes=progress.bytes,
        )
        destination = text(message.command, "MoveDestination") if is_move else ""
        session.account.retrieved(
            message, destination, completed=progress.completed + progress.warning, failed=progress.failed
        )
        _respond(session, message, status, progress)


def _plan(session: Session, message: Message, service: Service, report: Report) -> Plan | Status:
    """Read the request; raises IdentifierError, DestinationUnknown before anything is asked from the archive."""
    context = message.context
    if context.abstract_syntax not in (MOVES if service is Service.MOVE else GETS):
        return Status(SOP_CLASS_NOT_SUPPORTED, "the context is not for this operation")
    if service is Service.MOVE:
        title = text(message.command, "MoveDestination")
        report.note(destination=title)
        peer = session.config.peers.get(title)
        if peer is None or peer.port is None:
            raise DestinationUnknown(title, "is not in the configuration with host and port (peers)")
    identifier = decode_identifier(message.data, context.transfer_syntax, default_charset=session.peer.character_set)
    model = {**MOVE_MODELS, **GET_MODELS}.get(context.abstract_syntax)
    if model is None:
        return _plan_composite(session, context.abstract_syntax, identifier)
    search = expand_plan(
        identifier,
        model,
        session.archive.profile,
        session.negotiated_for(message),
        default_level=session.peer.default_level or "",
        lenient=session.peer.lenient,
    )
    return Plan(search)


def _plan_composite(session: Session, sop_class: str, identifier: Dataset) -> Plan:
    """Plan for SOP Instance UIDs alone; of the frames of one in several studies the first found is taken."""
    plain, frames = read_composite(identifier, frames=sop_class in (COMPOSITE_MOVE, COMPOSITE_GET))
    search = expand_plan(plain, Model.STUDY_ROOT, session.archive.profile, Negotiated(relational=True))
    if sop_class == WITHOUT_BULK_GET:
        return Plan(search, without_bulk_data)
    return Plan(search, as_it_is if frames is None else some_frames(frames))


def _whole_series(session: Session, search: Search) -> bool:
    """Say whether every instance of a series is wanted, and the archive gives all in one answer."""
    single = any(key.keyword == UNIQUE_KEYS[IMAGE] for key in search.return_keys)
    return session.archive.profile.series_retrieval and not single


def _early(session: Session, search: Search) -> Series | None:
    """Give what may be asked from a far archive together with the search for its instances, a round trip earlier.

    What is kept of it need not be asked for, and each of the two needs a connection.
    """
    archive = session.config.archives.get(session.route.name)
    named = {key.keyword: key.values for key in search.return_keys}
    studies, series = named.get(UNIQUE_KEYS[STUDY], ()), named.get(UNIQUE_KEYS[SERIES], ("",))
    if archive is None or not archive.retrieve_early or archive.connections < _FOR_EARLY:
        return None
    if len(studies) != 1 or len(series) != 1 or session.route.recent.has_any(studies[0]):
        return None
    return Series(studies[0], series[0])


def _pages(session: Session, search: Search) -> Iterator[list[Target]]:
    """Yield the instances that are named and not rejected."""
    rejecting = session.route.rejecting
    for page in _named(session, search):
        hidden = rejecting.hidden([target.sop_instance for target in page]) if rejecting is not None else ()
        yield [target for target in page if target.sop_instance not in hidden] if hidden else page


def _named(session: Session, search: Search) -> Iterator[list[Target]]:
    """Yield the instances that are named; one that cannot be asked for must not be missing in silence."""
    yield [waiting(entry) for entry in session.backlog(search).instances()]
    for page in _instances(session, search):
        targets = [_target(row, session.route.recent) for row in page]
        if not all(target.study and target.series and target.sop_instance for target in targets):
            raise AnswerUnreadable(session.archive.name, "an instance without its UIDs")
        yield targets


def _instances(session: Session, search: Search) -> Iterator[list[Row]]:
    """Yield the rows of the instances, by way of their studies where the archive needs that."""
    scan = Scan(session.archive, search, session.route.max_scanned, first_page=_FIRST_PAGE)
    for page in scan.pages():
        if not search.studies_first:
            yield page
            continue
        for study in page:
            request = instances_of(study, session.archive.profile)
            if request is None:
                raise AnswerUnreadable(session.archive.name, "a study without Study Instance UID")
            yield from session.archive.search(request.resource, request.parameters)


def _target(row: Row, recent: RecentObjects) -> Target:
    uids = text_of(row, 0x0020000D), text_of(row, 0x0020000E), text_of(row, 0x00080018)
    study, series, sop_instance = uids
    return Target(study, series, text_of(row, 0x00080016), sop_instance, recent=recent.has(uids))


def _fetch(session: Session, expansion: Expansion) -> Fetch:
    route = session.route
    return Fetch(session.archive, expansion, session.scratch(), session.shares.archive(route.name), route.recent)


def _move(session: Session, message: Message, expansion: Expansion, progress: Progress, derive: Derive) -> Status:
    """Send over an association with the destination, in a thread: this one stays attentive to who asked."""
    title = text(message.command, "MoveDestination")
    destination = Destination(session, title, session.config.peers[title], message.identifier)
    fetch = _fetch(session, expansion)
    reason: GatewayError | None = None

    def outcomes() -> Iterator[Outcome]:
        with session.shares.destination(title).turn(lambda: destination.stopped), closing(destination):
            for one in derived(fetch, derive, session.scratch()):
                size, status = one.data_size, _sent(one, lambda fetched: destination.send(fetched, expansion.classes))
                yield Outcome(one.target, status, size)

    ahead = Ahead(
        session.association,
        outcomes(),
        depth=_OUTCOMES,
        hold=_PENDING_EVERY,
        tick=lambda: _pending(session, message, progress),
        dispose=progress.count,
    )
    try:
        with ahead as ended:
            for outcome in ended:
                progress.count(outcome)
                _pending(session, message, progress)
    except DestinationUnreachable as error:
        log.warning("destination unreachable", reason=str(error), unsent=progress.remaining)
        reason = error
    finally:
        fetch.leave()
        ahead.settle(_LAST_CHANCE)
        destination.stop()
    _complete(session, message, expansion, progress)
    status = progress.final()
    return status_of(reason, Service.MOVE) if reason is not None and not progress.succeeded else status


def _get(session: Session, message: Message, expansion: Expansion, progress: Progress, derive: Derive) -> Status:
    """Send over the association itself, in contexts whose SCP role the peer took (PS3.4 C.4.3)."""
    association, fetch = session.association, _fetch(session, expansion)

    def fitted() -> Iterator[Fetched]:
        for fetched in derived(fetch, derive, session.scratch()):
            contexts = contexts_for(association, fetched.meta.sop_class) if fetched.meta else {}
            yield _fitted(session, fetched, list(contexts))

    try:
        with Ahead(
            association,
            fitted(),
            tick=lambda: _pending(session, message, progress),
            dispose=Fetched.discard,
        ) as instances:
            for fetched in instances:
                size, status = fetched.data_size, _sent(fetched, lambda one: _stored(session, one))
                progress.count(Outcome(fetched.target, status, size))
                _pending(session, message, progress)
    finally:
        fetch.leave()
    _complete(session, message, expansion, progress)
    return progress.final()


def _fitted(session: Session, fetched: Fetched, accepted: list[str]) -> Fetched:
    """Give the instance as the peer takes it, the error in it when that cannot be."""
    try:
        fitted = fit(session.archive, fetched, accepted, session.scratch())
    except GatewayError as error:
        fetched.discard()
        return Fetched(fetched.target, error=error)
    if fitted is not fetched:
        fetched.discard()
    return fitted


def _stored(session: Session, fetched: Fetched) -> int:
    """Send an instance over the session's own association; a peer that cancelled has little time left to answer."""
    cancelled_at = 0.0

    def attentive() -> None:
        nonlocal cancelled_at
        if session.association.cancelled():
            cancelled_at = cancelled_at or time.monotonic()
            if time.monotonic() - cancelled_at >= _LAST_CHANCE:
                raise Cancelled("the peer cancelled the operation and does not answer")

    return store(session.association, fetched, {}, session.config.listen.network_timeout, attentive)


def _sent(fetched: Fetched, send: Callable[[Fetched], int]) -> int | None:
    """Send one instance; give its C-STORE status, none when it could not be sent. The rest goes on."""
    try:
        if fetched.error is not None:
            raise fetched.error
        return send(fetched)
    except (Cancelled, DestinationUnreachable, FramesError, PeerError):
        raise
    except GatewayError as error:
        log.warning("sub-operation failed", instance=fetched.target.sop_instance, reason=str(error))
        return None
    finally:
        fetched.discard()


def _complete(session: Session, message: Message, expansion: Expansion, progress: Progress) -> None:
    """Wait until all instances are known and count those as failed that did not end."""

    def complete() -> Iterator[None]:
        expansion.completed()
        yield None

    with Ahead(session.association, complete(), tick=lambda: _pending(session, message, progress)) as known:
        for _ in known:
            progress.fail_the_rest()


def _pending(session: Session, message: Message, progress: Progress) -> None:
    """Send a pending response, 20 a second at most, once its counters can be exact and while something is to come."""
    if progress.is_exact and progress.remaining and progress.is_due(_PENDING_EVERY):
        response = commands.response(message.command, PENDING)
        session.association.send(message.context, {**response, **progress.counters(remaining=True)})


def _respond(session: Session, message: Message, status: Status, progress: Progress) -> None:
    """Send the final response, with the list of what failed (PS3.4 C.4.2.1.4.2)."""
    response = {
        **commands.response(message.command, status.code, status.comment),
        **progress.counters(remaining=status.code == CANCEL),
    }
    data: bytes | None = None
    if progress.failed_instances:
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = progress.failed_instances
        data = encode_identifier(failed, message.context.transfer_syntax)
    session.association.send(message.context, response, data)
