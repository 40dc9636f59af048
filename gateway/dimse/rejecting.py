"""What rejection notes mean to one called AE title: which are heeded, what is refused, what is out of sight."""

from collections.abc import Collection, Mapping
from typing import Any, BinaryIO

import structlog

from gateway.dicomweb.client import Client
from gateway.errors import DataSetError, InstanceRejected, RejectionPending
from gateway.rejection import Action, Rejection, State, Tombstones
from gateway.translate.matching import text_of
from gateway.translate.part10 import Identity
from gateway.translate.rejection_note import KEY_OBJECT_SELECTION, Note, patient_digest, read_note, read_patient_id

log = structlog.get_logger("gateway.rejection")

Row = dict[str, Any]

_STUDY, _SERIES, _SOP_INSTANCE, _SOP_CLASS, _MODALITY = 0x0020000D, 0x0020000E, 0x00080018, 0x00080016, 0x00080060
_MODALITIES, _SOP_CLASSES = "00080061", "00080062"
_STUDY_SERIES, _STUDY_INSTANCES, _SERIES_INSTANCES = "00201206", "00201208", "00201209"


class Rejecting:
    """Apply what a called AE title says of rejection notes; `actions` are by the title's code, without `keep`."""

    def __init__(self, client: Client, tombstones: Tombstones, actions: Mapping[str, Action]) -> None:
        self._client = client
        self._tombstones = tombstones
        self._actions = actions

    # C-STORE

    def judge(self, stream: BinaryIO, transfer_syntax: str, identity: Identity) -> Note | Rejection | None:
        """Look at an instance that is to be stored, the stream standing at its data set.

        Gives the note that it is, or the rejection that ends when it is stored. Raises InstanceRejected.
        """
        begin = stream.tell()
        rejection = self._rejection(stream, transfer_syntax, identity)
        stream.seek(begin)
        if rejection is None:
            return _note(stream, transfer_syntax, identity)
        if not rejection.readmits:
            raise InstanceRejected(rejection.title)
        if rejection.due is not None:
            raise RejectionPending(rejection.title)
        return rejection

    def _rejection(self, stream: BinaryIO, transfer_syntax: str, identity: Identity) -> Rejection | None:
        """Find the rejection of an instance, if it is of this patient."""
        found = self._tombstones.find(self._client.name, identity.sop_instance)
        if found is None or found.state is State.REFUSED:
            return None
        if patient_digest(read_patient_id(stream, transfer_syntax)) == found.patient:
            return found
        log.warning("rejection not heeded", instance=identity.sop_instance, reason="another Patient ID")
        return None

    def stored(
        self, judged: Note | Rejection | None, identity: Identity, calling: str, called: str, *, may_reject: bool
    ) -> None:
        """Take note that what was judged is stored. Raises SpoolFull, SpoolBroken: then the note is to come again."""
        named = {"calling": calling, "called": called}
        if isinstance(judged, Rejection):
            self._tombstones.forget(self._client.name, judged.sop_instance)
            log.info("rejected instance taken again", instance=judged.sop_instance, title=judged.title, **named)
        elif isinstance(judged, Note):
            action = self._actions.get(judged.title)
            about = {"note": identity.sop_instance, "title": judged.title, "instances": len(judged.references)}
            if action is None:
                log.info("rejection note kept", **about, **named, reason="the title's policy is keep")
            elif not may_reject:
                reason = "the peer may not reject; add reject to its allow"
                log.warning("rejection note not heeded", **about, **named, reason=reason)
            else:
                uid, archive = identity.sop_instance, self._client.name
                new = self._tombstones.add(judged, uid, action, archive=archive, **named)
                log.info("rejection note taken", **about, **named, action=action, new=new)

    # Queries and retrievals

    def hidden(self, sop_instances: Collection[str]) -> set[str]:
        """Give those of the instances that are out of sight."""
        return self._tombstones.hidden(self._client.name, sop_instances)

    def sifted(self, level: str, rows: list[Row]) -> list[Row]:
        """Give the rows of a level without what is hidden, their counts without what is hidden below them."""
        if level == "IMAGE":
            hidden = self.hidden([text_of(row, _SOP_INSTANCE) for row in rows])
            return [row for row in rows if text_of(row, _SOP_INSTANCE) not in hidden] if hidden else rows
        touched = self._tombstones.touched(self._client.name, {text_of(row, _STUDY) for row in rows})
        if not touched:
            return rows
        studies = {study for study, _ in touched}
        sifted = []
        for row in rows:
            study, series = text_of(row, _STUDY), text_of(row, _SERIES) if level == "SERIES" else ""
            is_touched = (study, series) in touched if series else study in studies
            left = self._corrected(row, study, series) if is_touched else row
            if left is not None:
                sifted.append(left)
        return sifted

    def _corrected(self, row: Row, study: str, series: str) -> Row | None:
        """Give a row with the counts, classes and modalities of what can be seen; None when that is nothing."""
        below = f"studies/{study}/series/{series}/instances" if series else f"studies/{study}/instances"
        listed = {
            text_of(found, _SOP_INSTANCE): (text_of(found, _SERIES), text_of(found, _SOP_CLASS))
            for found in self._client.matches(below, [("includefield", "0020000D,0020000E,00080016")])
        }
        hidden = self.hidden(listed.keys())
        visible = [of for uid, of in listed.items() if uid not in hidden]
        if not visible:
            return None
        corrected = dict(row)
        if series:
            _replace(corrected, _SERIES_INSTANCES, "IS", [len(visible)])
            return corrected
        of_series = {one for one, _ in visible}
        _replace(corrected, _STUDY_SERIES, "IS", [len(of_series)])
        _replace(corrected, _STUDY_INSTANCES, "IS", [len(visible)])
        _replace(corrected, _SOP_CLASSES, "UI", sorted({sop_class for _, sop_class in visible if sop_class}))
        if _MODALITIES in row:
            _replace(corrected, _MODALITIES, "CS", self._modalities(study, of_series))
        return corrected

    def _modalities(self, study: str, of_series: Collection[str]) -> list[str]:
        rows = self._client.matches(f"studies/{study}/series", [("includefield", "0020000E,00080060")])
        found = {text_of(row, _MODALITY) for row in rows if text_of(row, _SERIES) in of_series}
        return sorted(found - {""})


def _replace(row: Row, tag: str, vr: str, values: list[Any]) -> None:
    """Set an attribute of a row that has it."""
    if tag in row:
        row[tag] = {"vr": vr, "Value": values}


def _note(stream: BinaryIO, transfer_syntax: str, identity: Identity) -> Note | None:
    if identity.sop_class != KEY_OBJECT_SELECTION:
        return None
    try:
        return read_note(stream, transfer_syntax)
    except DataSetError as error:  # it is an instance like any other, whatever else it was meant to be
        log.warning("rejection note not heeded", note=identity.sop_instance, reason=str(error))
        return None
