"""Act upon rejection notes: see whose the instances are, take them out of the outbox, hide or delete them."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Self

import structlog

from gateway.audit import Outcome
from gateway.dicomweb.client import Client
from gateway.errors import AnswerUnreadable, ArchiveError, DataSetError, GatewayError, NotFound
from gateway.outbox import Entry, Outbox
from gateway.outbox import State as Queued
from gateway.rejection.auditing import Auditor
from gateway.rejection.tombstones import Rejection, State, Tombstones
from gateway.rejection.units import Unit, units
from gateway.translate.matching import text_of
from gateway.translate.part10 import read_file_meta
from gateway.translate.rejection_note import patient_digest, read_patient_id

log = structlog.get_logger("gateway.rejection")

_TICK = 0.25  # seconds until a note that another process took is seen
_REST = 1.0  # seconds after the table or the outbox failed
_FIRST, _LONGEST = 1.0, 300.0  # seconds between two attempts
# Seconds after which an instance that is not there is looked for again: it may be under way, by whatever way
_LOOK_AGAIN = (5.0, 30.0, 300.0, 3600.0)
_PATIENT_ID, _SERIES, _SOP_INSTANCE = 0x00100020, 0x0020000E, 0x00080018


class Rejector:
    """Act upon what is due, one thread per archive; use as a context manager, in one process of a gateway."""

    CONNECTIONS = 1

    def __init__(
        self, tombstones: Tombstones, outbox: Outbox, archives: Mapping[str, Client], auditor: Auditor
    ) -> None:
        self._tombstones = tombstones
        self._auditor = auditor
        self._outbox = outbox
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(client,), name=f"reject-{name}", daemon=True)
            for name, client in archives.items()
        ]

    def __enter__(self) -> Self:
        self._tombstones.hurry()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, grace: float = 5.0) -> None:
        """Let running requests end within `grace` seconds; the rest is done after the next start."""
        self._stopping.set()
        self._tombstones.wake()
        until = time.monotonic() + grace
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, client: Client) -> None:
        while not self._stopping.is_set():
            try:
                due = self._tombstones.due(client.name)
                if due:
                    self._attend(client, due)
                else:
                    self._tombstones.wait(_TICK)
            except GatewayError as error:
                log.error("rejection interrupted", archive=client.name, reason=str(error))
                self._stopping.wait(_REST)

    def _attend(self, client: Client, due: Sequence[Rejection]) -> None:
        """Act upon instances of one study that one note names; whatever fails is tried again."""
        try:
            self._act(client, due)
        except GatewayError as error:
            self._again(due, str(error))
        except Exception as error:
            log.exception("rejection failed", archive=client.name, note=due[0].note)
            self._again(due, type(error).__name__)

    def _again(self, due: Sequence[Rejection], reason: str) -> None:
        first = due[0]
        self._tombstones.postpone(due, min(_LONGEST, _FIRST * 2.0 ** min(first.attempts, 32)))
        write = log.debug if first.attempts else log.warning
        write("rejection waits", archive=first.archive, note=first.note, instances=len(due), reason=reason)

    def _act(self, client: Client, due: Sequence[Rejection]) -> None:
        if any(entry.state is not Queued.DONE for entry in self._outbox.of_instances(client.name, [due[0].note])):
            waiting, verified, _ = self._verified(client, due)
            self._outbox.hold_back([waiting[one.sop_instance].id for one in verified if one.action == "delete"])
            self._again(due, "the note itself is not delivered yet")
            return
        ready = self._out_of_the_outbox(client, due)
        if not ready:
            return
        listed = _listed(client, ready[0].study)
        present = [one for one in ready if one.sop_instance in listed]
        patient_id = _patient_id(client, present[0].study) if present else ""
        if present and patient_digest(patient_id) != present[0].patient:
            self._refuse(present, "the archive has the study under another Patient ID", patient_id)
            present = []
        self._missing([one for one in ready if one.sop_instance not in listed])
        self._hide([one for one in present if one.action == "hide"], patient_id)
        deleting = [one for one in present if one.action == "delete"]
        if deleting and not client.profile.delete:
            self._instead(deleting, "an archive of its profile does not delete", patient_id)
        elif deleting:
            self._delete(client, deleting, listed, patient_id)

    def _out_of_the_outbox(self, client: Client, due: Sequence[Rejection]) -> list[Rejection]:
        """Settle what waits for its delivery; give what the archive is to be asked about."""
        waiting, verified, patient_id = self._verified(client, due)
        self._hide([one for one in verified if one.action == "hide"], patient_id)
        deleting = [one for one in verified if one.action == "delete"]
        self._outbox.withdraw([waiting[one.sop_instance].id for one in deleting])
        leased = self._waiting(client, deleting)
        late = [one for one in deleting if one.sop_instance in leased]
        self._auditor.tell([one for one in deleting if one.sop_instance not in leased], "D", patient_id)
        self._tombstones.set_state(late, State.HIDDEN, final=False)
        if late:
            self._again(late, "instances are on their way to the archive")
        # An earlier attempt may have stored what is out of the outbox now.
        asked = {one.sop_instance for one in deleting if one.sop_instance not in leased}
        return [one for one in due if one.sop_instance not in waiting or one.sop_instance in asked]

    def _verified(self, client: Client, due: Sequence[Rejection]) -> tuple[dict[str, Entry], list[Rejection], str]:
        """Find what waits in the outbox, and of that the rejections of the note's patient, with the Patient ID.

        Those of another patient are settled.
        """
        waiting = self._waiting(client, due)
        verified: list[Rejection] = []
        verified_id = ""
        for one in due:
            if (entry := waiting.get(one.sop_instance)) is None:
                continue
            try:
                patient_id = _patient_id_of(entry)
            except (OSError, DataSetError):  # it was delivered just now, or somebody has lost its file
                self._again([one], "an instance in the outbox cannot be read")
                continue
            if patient_digest(patient_id) == one.patient:
                verified.append(one)
                verified_id = patient_id
            else:
                self._refuse([one], "the instance in the outbox is of another Patient ID", patient_id)
        return waiting, verified, verified_id

    def _waiting(self, client: Client, rejections: Sequence[Rejection]) -> dict[str, Entry]:
        """Find those that the outbox has not delivered."""
        found = self._outbox.of_instances(client.name, [one.sop_instance for one in rejections])
        return {entry.sop_instance: entry for entry in found if entry.state is not Queued.DONE}

    def _hide(self, hiding: Sequence[Rejection], patient_id: str) -> None:
        self._settle(hiding, State.HIDDEN, "rejected instance hidden")
        self._auditor.tell(hiding, "U", patient_id)

    def _delete(
        self, client: Client, deleting: Sequence[Rejection], listed: Mapping[str, str], patient_id: str
    ) -> None:
        self._tombstones.set_state(deleting, State.HIDDEN, final=False)
        by_uid = {one.sop_instance: one for one in deleting}
        study = deleting[0].study
        coming = {
            entry.sop_instance: entry.series
            for entry in self._outbox.entries(study, client.name)
            if entry.sop_instance not in by_uid
        }
        for unit in units(study, {**coming, **listed}, by_uid.keys()):
            if self._stopping.is_set():
                return
            self._delete_unit(client, unit, [by_uid[uid] for uid in unit.instances], patient_id)

    def _delete_unit(self, client: Client, unit: Unit, rejected: Sequence[Rejection], patient_id: str) -> None:
        try:
            client.delete(unit.study, unit.series, unit.sop_instance)
        except NotFound:
            pass  # somebody else was quicker
        except ArchiveError as error:
            if error.retry:
                self._again(rejected, str(error))
            else:
                self._instead(rejected, str(error), patient_id)
            return
        # first of all: were the table to fail now, the next attempt would find nothing and say nothing
        self._auditor.tell(rejected, "D" if unit.series else "study", patient_id)
        # What was delivered answers for repeats for a while; one that may come back has to be stored again.
        uids = [one.sop_instance for one in rejected]
        self._outbox.withdraw([entry.id for entry in self._outbox.of_instances(client.name, uids)])
        self._settle(rejected, State.GONE, "rejected instance deleted")

    def _instead(self, rejected: Sequence[Rejection], reason: str, patient_id: str) -> None:
        self._settle(rejected, State.HIDDEN, "rejected instance hidden, for it cannot be deleted", reason=reason)
        self._auditor.tell(rejected, "U", patient_id)

    def _missing(self, missing: Sequence[Rejection]) -> None:
        """Look for what is not there a few times more; then only a later C-STORE can bring it, which is refused."""
        for looks in {one.looks for one in missing}:
            some = [one for one in missing if one.looks == looks]
            if looks < len(_LOOK_AGAIN):
                self._tombstones.look_again(some, _LOOK_AGAIN[looks])
            else:
                self._settle(some, State.GONE, "rejected instance is not there")

    def _refuse(self, rejected: Sequence[Rejection], reason: str, patient_id: str) -> None:
        self._settle(rejected, State.REFUSED, "rejection not acted upon", reason=reason)
        self._auditor.tell(rejected, "D" if rejected[0].action == "delete" else "U", patient_id, Outcome.MINOR)

    def _settle(self, rejected: Sequence[Rejection], state: State, event: str, *, reason: str = "") -> None:
        self._tombstones.set_state(rejected, state, final=True)
        write = log.warning if reason else log.info
        for one in rejected:
            write(
                event,
                instance=one.sop_instance,
                series=one.series,
                study=one.study,
                archive=one.archive,
                title=one.title,
                note=one.note,
                calling=one.calling,
                called=one.called,
                **({"reason": reason} if reason else {}),
            )


def _listed(client: Client, study: str) -> dict[str, str]:
    """Map the instances that the archive has of a study to their series."""
    fields = [("includefield", "0020000D,0020000E,00080016")]
    rows = client.matches(f"studies/{study}/instances", fields)
    return {text_of(row, _SOP_INSTANCE): text_of(row, _SERIES) for row in rows}


def _patient_id(client: Client, study: str) -> str:
    """Give the Patient ID under which the archive has a study."""
    key = [("StudyInstanceUID", study), ("includefield", "00100020")]
    found = {text_of(row, _PATIENT_ID).strip(" \0") for row in client.matches("studies", key)}
    if len(found) != 1:
        raise AnswerUnreadable(client.name, "a study with instances is not found once")
    return found.pop()


def _patient_id_of(entry: Entry) -> str:
    with entry.extent.open() as stream:
        meta = read_file_meta(stream)
        stream.seek(meta.offset)
        return read_patient_id(stream, meta.transfer_syntax).strip(" \0")
