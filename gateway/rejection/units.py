"""Say in how few requests instances can be deleted. Pure."""

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Unit(NamedTuple):
    """Name what one DELETE is for: a study, a series or an instance; `instances` are those rejected that it takes."""

    study: str
    series: str
    sop_instance: str
    instances: tuple[str, ...]


def units(study: str, listed: Mapping[str, str], rejected: Collection[str]) -> list[Unit]:
    """Cover the rejected instances of a study with the largest units that take nothing else with them.

    `listed` maps each SOP Instance UID in the study, on its way there included, to its Series Instance UID.
    """
    doomed = [uid for uid in listed if uid in rejected]
    if not doomed:
        return []
    if len(doomed) == len(listed):
        return [Unit(study, "", "", tuple(doomed))]
    by_series: dict[str, list[str]] = {}
    for uid in doomed:
        by_series.setdefault(listed[uid], []).append(uid)
    spared = {series for uid, series in listed.items() if uid not in rejected}
    found: list[Unit] = []
    for series, uids in by_series.items():
        if series in spared:
            found += [Unit(study, series, uid, (uid,)) for uid in uids]
        else:
            found.append(Unit(study, series, "", tuple(uids)))
    return found
