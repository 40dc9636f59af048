"""The audit trail: messages of PS3.15 A.5 in files, and from there to a syslog server."""

from gateway.audit.keeper import Keeper
from gateway.audit.messages import (
    Activity,
    Alert,
    Event,
    Node,
    Outcome,
    Patient,
    Query,
    Source,
    Study,
    Transfer,
    accessed,
    activity,
    alerted,
    study_deleted,
)
from gateway.audit.trail import Trail, append

__all__ = [
    "Activity",
    "Alert",
    "Event",
    "Keeper",
    "Node",
    "Outcome",
    "Patient",
    "Query",
    "Source",
    "Study",
    "Trail",
    "Transfer",
    "accessed",
    "activity",
    "alerted",
    "append",
    "study_deleted",
]
