"""Retrieve what the archive does not have yet: instances that wait in the outbox."""

import os
from collections.abc import Iterator

from gateway.dimse.expansion import Target
from gateway.dimse.scratch import Content, InFile, Scratch
from gateway.errors import SpoolBroken
from gateway.outbox import Entry, Outbox
from gateway.translate.search import Search

_UNIQUE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def waiting(outbox: Outbox, archive: str, search: Search) -> Iterator[Target]:
    """Yield the instances named by a retrieve that wait for this archive.

    A patient's are found only where the request names a study: the outbox knows instances by their UIDs. Raises
    SpoolBroken.
    """
    named = {key.keyword: tuple(map(str, key.values)) for key in search.return_keys}
    studies, series, instances = (named.get(keyword, ()) for keyword in _UNIQUE)
    if studies:
        found = (entry for study in studies for entry in outbox.find(study=study))
    else:
        found = (entry for instance in instances for entry in outbox.find(sop_instance=instance))
    for entry in found:
        wanted = not series or entry.series in series
        if wanted and (not instances or entry.sop_instance in instances) and entry.archive == archive:
            yield _target(entry)


def _target(entry: Entry) -> Target:
    return Target(entry.study, entry.series, entry.sop_class, entry.sop_instance, entry.path)


def take_waiting(target: Target, scratch: Scratch) -> Content | None:
    """Give the waiting instance under another name, so that its delivery leaves it; None when it was delivered."""
    if target.waiting is None:
        return None
    path = scratch.name()
    try:
        os.link(target.waiting, path)
        return InFile(path, path.stat().st_size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpoolBroken(f"an instance of the outbox cannot be read: {error.strerror}") from error
