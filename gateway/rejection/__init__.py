"""Imaging Object Change Management (IHE RAD TF-1 29): what rejection notes name is hidden or deleted."""

from gateway.rejection.auditing import Auditor
from gateway.rejection.rejector import Rejector
from gateway.rejection.tombstones import Action, Rejection, Stage, State, Tombstones
from gateway.rejection.units import Unit, units

__all__ = ["Action", "Auditor", "Rejection", "Rejector", "Stage", "State", "Tombstones", "Unit", "units"]
