"""Say to the audit trail what became of rejected instances, once for each study that a note names and each step."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from gateway.audit import Node, Outcome, Patient, Study, Trail, accessed, study_deleted
from gateway.audit.messages import WITHHELD
from gateway.rejection.tombstones import Rejection

_MOST_LISTED = 500  # instances of a message: a syslog server has to take it, by UDP in one datagram


class Auditor:
    """Write messages of PS3.15 A.5.3.6 and A.5.3.8 to a trail, if there is one; `patients` lets Patient IDs in."""

    def __init__(self, trail: Trail | None, *, patients: bool) -> None:
        self._trail = trail
        self._patients = patients

    def tell(
        self,
        rejected: Sequence[Rejection],
        action: Literal["U", "D", "study"],
        patient_id: str,
        outcome: Outcome = Outcome.SUCCESS,
    ) -> None:
        """Say that instances which one note names in one study were hidden (U) or deleted (D), or the whole study."""
        if self._trail is None or not rejected:
            return
        first = rejected[0]
        user, process = Node(first.calling, (first.calling,)), Node(first.called, (first.called,))
        patient = Patient(patient_id if self._patients else WITHHELD)
        if action == "study":
            study = Study(first.study, {"": len(rejected)})
            self._trail.record(
                partial(study_deleted, user=user, study=study, patient=patient, process=process), outcome
            )
            return
        for start in range(0, len(rejected), _MOST_LISTED):
            uids = tuple(one.sop_instance for one in rejected[start : start + _MOST_LISTED])
            study = Study(first.study, {"": len(uids)}, uids)
            write = partial(accessed, action=action, user=user, study=study, patient=patient, process=process)
            self._trail.record(write, outcome)
