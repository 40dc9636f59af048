"""Send instances to a move destination over one association at a time, opened again when it drops or does not do."""

import contextlib
import threading
from collections.abc import Sequence

import structlog

from gateway.config import Peer
from gateway.dimse.association import Association, Context
from gateway.dimse.fetch import Fetched
from gateway.dimse.negotiation import EXPLICIT_LE, IMPLICIT_LE
from gateway.dimse.scu import AssociationRefused, associate
from gateway.dimse.session import Session
from gateway.dimse.suboperation import contexts_for, fit, store
from gateway.dimse.upper_layer import Connection, TimeIsUp
from gateway.errors import Cancelled, DestinationError, DestinationUnreachable, PeerError

log = structlog.get_logger("gateway.dimse")

MOST_CONTEXTS = 128  # odd identifiers of one byte (PS3.8 9.3.2.2)
_FALLBACK = (EXPLICIT_LE, IMPLICIT_LE)
_MOST_LOST = 2  # instances in a row whose association dropped twice: then nothing more is tried
_PAUSE = 1.0  # seconds before a destination that dropped and refuses to be called is called once more
_GOODBYE = 5.0  # seconds for the answer to a release

_Pair = tuple[str, str]  # SOP class, transfer syntax


def proposals(needed: _Pair, seen: Sequence[_Pair], classes: Sequence[str], most: int = MOST_CONTEXTS) -> list[_Pair]:
    """Choose what to propose, one presentation context each: `needed` first, then as many classes as have room.

    A class is proposed in each transfer syntax that was seen in it, or else in that of `needed`, and in those that
    everything may be converted to. `classes` are in an order near that of their instances: those close to the
    needed one that did not come yet are the likeliest to come next.
    """
    own, syntax = needed
    place = {uid: number for number, uid in enumerate(classes)}
    came = {uid for uid, _ in seen}
    at = place.get(own, 0)
    others = sorted(classes, key=lambda uid: (uid in came, abs(place[uid] - at)))
    chosen: dict[_Pair, None] = {}
    for uid in dict.fromkeys((own, *others)):
        syntaxes = [one for other, one in seen if other == uid] or [syntax]
        first = [syntax] if uid == own else []
        pairs = [(uid, one) for one in dict.fromkeys((*first, *_FALLBACK, *syntaxes))][:most]
        if len(chosen) + len(pairs) > most:
            break
        chosen.update(dict.fromkeys(pairs))
    return list(chosen)


class Destination:
    """Send to one destination; used by one thread, but for `stop`."""

    def __init__(self, session: Session, title: str, peer: Peer, message_id: int) -> None:
        self._session = session
        self._title = title
        self._peer = peer
        self._archive, self._scratch = session.archive, session.scratch()
        self._timeout = session.config.listen.network_timeout
        self._originator: dict[str, int | str] = {
            "MoveOriginatorApplicationEntityTitle": session.calling,
            "MoveOriginatorMessageID": message_id,
        }
        self._seen: list[_Pair] = []
        self._proposed: list[_Pair] = []
        self._alone: set[_Pair] = set()
        self._wide = True
        self._lost = 0
        self._association: Association | None = None
        self._connection: Connection | None = None
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Say whether `stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Break off what is being done; safe from any thread."""
        self._stopped.set()
        if self._connection is not None:
            self._connection.sever()

    def send(self, fetched: Fetched, classes: Sequence[str]) -> int:
        """Send an instance and give its C-STORE status; `classes` are those that are known to come, in order.

        An association that drops is opened again once and the instance repeated. Raises DestinationUnreachable
        when nothing more can be sent, Cancelled after `stop`, and any other GatewayError when only this instance
        cannot.
        """
        problem = PeerError("")
        for _ in range(2):
            try:
                status = self._store(fetched, classes)
            except PeerError as error:
                self._drop()
                if self.stopped:
                    raise Cancelled("the operation ended") from error
                log.warning("destination dropped the association", destination=self._title, reason=str(error))
                problem = error
            else:
                self._lost = 0
                return status
        self._lost += 1
        if self._lost == _MOST_LOST or isinstance(problem, TimeIsUp):
            raise DestinationUnreachable(self._title, f"dropped the association again: {problem}")
        raise DestinationError(self._title, f"dropped the association twice on this instance: {problem}")

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None:
            with contextlib.suppress(PeerError):  # all was answered; how it says good-bye is its affair
                association.release(min(self._timeout, _GOODBYE))

    def _store(self, fetched: Fetched, classes: Sequence[str]) -> int:
        if fetched.error is not None:
            raise fetched.error
        association, contexts = self._contexts(fetched, classes)
        fitted = fit(self._archive, fetched, list(contexts), self._scratch)
        try:
            return store(association, fitted, self._originator, self._timeout)
        finally:
            if fitted is not fetched:
                fitted.discard()

    def _contexts(self, fetched: Fetched, classes: Sequence[str]) -> tuple[Association, dict[str, Context]]:
        """Give an association and its contexts for an instance's class.

        There are destinations that accept one context and no other: to them each class is proposed alone.
        """
        needed = (fetched.meta.sop_class, fetched.meta.transfer_syntax) if fetched.meta else ("", "")
        if needed not in self._seen:
            self._seen.append(needed)
        if self._association is None or needed not in self._proposed:
            self._open(needed, classes)
        contexts = self._accepted(needed)
        others = any(uid != needed[0] for uid, _ in self._proposed)
        picky = self._association is not None and len(self._association.contexts) <= 1
        if not contexts and others and picky and needed not in self._alone:
            self._alone.add(needed)
            self._open(needed, ())
            contexts = self._accepted(needed)
        if self._association is None:
            raise DestinationUnreachable(self._title, "gives no association")
        return self._association, contexts

    def _accepted(self, needed: _Pair) -> dict[str, Context]:
        return contexts_for(self._association, needed[0]) if self._association else {}

    def _open(self, needed: _Pair, classes: Sequence[str]) -> None:
        """Open an association; a destination that takes no long request is asked for the needed class alone."""
        dropped = self._association is None and bool(self._proposed)
        self.close()
        wanted = proposals(needed, self._seen, classes if self._wide else ())
        try:
            self._call(wanted)
        except AssociationRefused:
            narrow = proposals(needed, (), ())
            if narrow == wanted:
                raise
            self._call(narrow)
            self._wide = False
        except DestinationUnreachable:
            if not dropped or self._stopped.wait(_PAUSE):
                raise
            self._call(wanted)

    def _call(self, wanted: list[_Pair]) -> None:
        if self.stopped:
            raise Cancelled("the operation ended")
        self._proposed = wanted
        self._association = associate(
            self._title,
            self._peer,
            calling=self._session.called,
            proposals=wanted,
            timeout=self._timeout,
            connected=self._connected,
        )

    def _connected(self, connection: Connection) -> None:
        self._connection = connection
        if self.stopped:
            connection.sever()

    def _drop(self) -> None:
        if self._association is not None:
            self._association.abort()
            self._association = None
