"""Say to the audit trail what an association did: once for each of its studies, queries and retrievals."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import structlog
from pydicom.dataset import Dataset

from gateway.audit import Alert, Node, Outcome, Patient, Query, Study, Trail, Transfer
from gateway.audit.messages import WITHHELD, alerted, queried, transferred
from gateway.config import Config
from gateway.dimse.association import Message
from gateway.errors import DataSetError, IdentifierError
from gateway.translate.excerpt import excerpt
from gateway.translate.identifier import decode_identifier
from gateway.translate.matching import text_of
from gateway.translate.part10 import Identity

log = structlog.get_logger("gateway.dimse")

_LONGEST = 60.0  # seconds for which instances are gathered into one message
_SAME_ALERT = 60.0  # seconds in which the same alert is raised once
_MOST_ALERTS = 1000
_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020


class Auditor:
    """Raise alerts for a listening process, and make the accounts of its associations; safe from any thread."""

    def __init__(self, trail: Trail | None, config: Config) -> None:
        self.trail = trail
        self.patients = config.audit is not None and config.audit.patients
        self.titles = tuple(config.ae_titles)
        self._lock = threading.Lock()
        self._raised: dict[tuple[str, ...], float] = {}

    def alert(self, address: str, words: str, *, calling: str = "") -> None:
        """Raise a Security Alert about a caller that was refused; the same one at most once a minute."""
        if self.trail is None:
            return
        key, now = (address, words, calling), time.monotonic()
        with self._lock:
            if now - self._raised.get(key, -_SAME_ALERT) < _SAME_ALERT:
                return
            if len(self._raised) >= _MOST_ALERTS:
                self._raised.clear()
            self._raised[key] = now
        culprit = Node(calling or address, (calling,) if calling else (), address)
        self.trail.record(partial(alerted, kind=Alert.NODE, culprit=culprit, words=words), Outcome.MINOR)

    def association(self, calling: str, called: str, address: str) -> "Account":
        """Open the account of an association."""
        return Account(self, calling, called, address)


class Account:
    """Gather what one association does; used by its thread only. `close` writes what is left."""

    def __init__(self, auditor: Auditor, calling: str, called: str, address: str) -> None:
        self._trail = auditor.trail
        self._patients = auditor.patients
        self._peer = Node(calling, (calling,), address)
        self._gateway = Node(called, (called,))
        self._begun = 0.0
        self._people: dict[str, Patient] = {}
        self._stored: dict[tuple[str, bool], Counter[str]] = {}

    @contextmanager
    def storing(self, identity: Identity, opened: Callable[[], BinaryIO]) -> Iterator[Callable[[int], None]]:
        """Count an instance by the C-STORE status that is told within; it has failed when none is."""
        told: list[int] = []
        if self._trail is not None and identity.study not in self._people:
            self._people[identity.study] = _patient(opened) if self._patients else Patient(WITHHELD)
        try:
            yield told.append
        finally:
            if self._trail is not None:
                self._count(identity, succeeded=bool(told) and (told[0] == 0 or told[0] >> 12 == 0xB))

    def queried(self, message: Message, status: int) -> None:
        """Write that a query was answered."""
        if self._trail is None:
            return
        context = message.context
        query = Query(
            asker=self._peer,
            sop_class=context.abstract_syntax,
            identifier=bytes(message.data) if self._patients else None,
            transfer_syntax=context.transfer_syntax,
        )
        self._trail.record(partial(queried, query=query), _outcome(status))

    def retrieved(self, message: Message, destination: str, completed: int, failed: int) -> None:
        """Write that instances were sent, to a destination or back to the peer when that is empty."""
        if self._trail is None:
            return
        studies, patient = self._named(message)
        receiver = Node(destination, (destination,)) if destination else self._peer
        for number, outcome in ((completed, Outcome.SUCCESS), (failed, Outcome.MINOR)):
            if number:
                # what went in which class is not kept: of several studies the number is that of all together
                counted = tuple(Study(uid, {"": number} if uid == studies[0] else {}) for uid in studies)
                transfer = Transfer("R", self._gateway, receiver, self._peer, counted, patient)
                self._trail.record(partial(transferred, transfer=transfer), outcome)

    def close(self) -> None:
        """Write what was stored and not written yet."""
        if self._trail is not None:
            for (study, succeeded), counted in self._stored.items():
                transfer = Transfer(
                    action="C",
                    sender=self._peer,
                    receiver=self._gateway,
                    requestor=self._peer,
                    studies=(Study(study, dict(counted)),),
                    patient=self._people[study],
                )
                outcome = Outcome.SUCCESS if succeeded else Outcome.MINOR
                self._trail.record(partial(transferred, transfer=transfer), outcome)
        self._stored, self._people = {}, {}

    def _count(self, identity: Identity, *, succeeded: bool) -> None:
        now = time.monotonic()
        if not self._stored:
            self._begun = now
        self._stored.setdefault((identity.study, succeeded), Counter())[identity.sop_class] += 1
        if now - self._begun > _LONGEST:
            self.close()

    def _named(self, message: Message) -> tuple[list[str], Patient]:
        """Read from an identifier which studies and whose it names."""
        try:
            identifier = decode_identifier(message.data, message.context.transfer_syntax)
        except IdentifierError:
            return [""], Patient(WITHHELD)  # it was refused; the log says why
        studies = [str(uid) for uid in _values(identifier, "StudyInstanceUID")] or [""]
        person = "\\".join(str(value) for value in _values(identifier, "PatientID"))
        return studies, Patient(person if self._patients else WITHHELD)


def _values(identifier: Dataset, keyword: str) -> list[object]:
    value = identifier.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)


def _outcome(status: int) -> Outcome:
    return Outcome.SUCCESS if status in (0x0000, 0xFE00) else Outcome.MINOR


def _patient(opened: Callable[[], BinaryIO]) -> Patient:
    """Read whose an instance is, in bounded memory; a store does not fail of what cannot be read."""
    try:
        with opened() as file:
            found, _ = excerpt(file, {_PATIENT_NAME, _PATIENT_ID})
    except (DataSetError, OSError) as error:
        log.warning("patient unreadable for the audit trail", reason=type(error).__name__)
        return Patient()
    return Patient(text_of(found, _PATIENT_ID), text_of(found, _PATIENT_NAME))
