"""Patients out of studies: what an archive without a patient resource is asked for at PATIENT level (PS3.4 C.6.1)."""

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.translate.matching import Model, text_of

_STUDY_DATE, _STUDY_TIME = 0x00080020, 0x00080030
_NAME, _ID, _ISSUER, _BIRTH_DATE = 0x00100010, 0x00100020, 0x00100021, 0x00100030


class Patients:
    """Collect one entity per patient: the demographics of the newest study, older ones filling its gaps.

    A patient is a Patient ID of one issuer; without a Patient ID also name and birth date tell patients apart.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[tuple[str, str], dict[str, Any]]] = {}

    def add(self, studies: Iterable[Model]) -> None:
        """Take studies in the DICOM JSON model, in any order."""
        for study in studies:
            model = dict(study)
            age = text_of(model, _STUDY_DATE).replace(".", ""), text_of(model, _STUDY_TIME)
            identity = identity_of(model)
            known_age, known = self._known.get(identity, (age, model))
            newer, older = (model, known) if age > known_age else (known, model)
            newest = {name: element for name, element in newer.items() if _has_value(element)}
            self._known[identity] = (max(age, known_age), {**older, **newest})

    def entities(self) -> list[dict[str, Any]]:
        """Give the patients so far."""
        return [model for _, model in self._known.values()]


def identity_of(model: Model) -> tuple[str, ...]:
    """Give what tells the patient of an entity from others."""
    tags = (_ID, _ISSUER) if text_of(model, _ID) else (_ID, _ISSUER, _NAME, _BIRTH_DATE)
    return tuple(text_of(model, tag) for tag in tags)


def _has_value(element: object) -> bool:
    return isinstance(element, Mapping) and bool(element.get("Value"))
