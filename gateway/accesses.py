"""Tell the audit trail what an operator's command did with instances, once for each study (PS3.15 A.5.3.6)."""

import getpass
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Literal

from gateway import audit
from gateway.app import audit_folder, audit_source
from gateway.config import Config
from gateway.outbox import Entry

Action = Literal["R", "U", "D"]
"""Read, update, or delete."""


class Accesses:
    """Count the instances of each study that go through a command's hands."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._studies: dict[str, Counter[str]] = {}

    def counting(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Give the entries on, and count them."""
        for entry in entries:
            self.count(entry.study, entry.sop_class)
            yield entry

    def count(self, study: str, sop_class: str = "") -> None:
        """Count one instance, of a class that may not be known."""
        self._studies.setdefault(study, Counter())[sop_class] += 1

    def tell(self, action: Action) -> None:
        """Write what was counted; whose it is the queue does not know, the study says it."""
        if self._config.audit is None:
            return
        source = audit_source(self._config)
        user = audit.Node(getpass.getuser(), address=source.host)
        for uid, counted in self._studies.items():
            study = audit.Study(uid, counted)
            write = partial(audit.accessed, action=action, user=user, study=study, patient=audit.Patient())
            audit.append(audit_folder(self._config), source, write)
