"""Count the sub-operations of a retrieve (PS3.4 C.4.2.1.6)."""

import time
from dataclasses import dataclass

from gateway.dimse.expansion import Expansion, Target
from gateway.status import ALL_SUB_OPERATIONS_FAILED, SUB_OPERATIONS_FAILED, SUCCESS, Status

_MOST = 65_535  # the counters are US


@dataclass(frozen=True, slots=True)
class Outcome:
    """Say how a sub-operation ended: its C-STORE status, none when it could not be sent; `size` in bytes."""

    target: Target
    status: int | None
    size: int = 0


class Progress:
    """Count sub-operations: remaining + completed + failed + warning stays the total."""

    def __init__(self, expansion: Expansion) -> None:
        self._expansion = expansion
        self.completed = 0
        self.warning = 0
        self.bytes = 0
        self.failed_instances: list[str] = []
        self._ended: set[str] = set()
        self._said = 0.0

    @property
    def failed(self) -> int:
        """Give the number of failed sub-operations."""
        return len(self.failed_instances)

    @property
    def remaining(self) -> int:
        """Give the number of sub-operations to come, as far as they are known."""
        return self._expansion.known - len(self._ended)

    @property
    def is_exact(self) -> bool:
        """Say whether the number of sub-operations is known, so that their sum will stay the same."""
        return self._expansion.total is not None

    def is_due(self, seconds: float) -> bool:
        """Say whether so much time has passed since this last said so."""
        now = time.monotonic()
        if now - self._said < seconds:
            return False
        self._said = now
        return True

    def count(self, outcome: Outcome) -> None:
        """Count one ended sub-operation."""
        uid, status = outcome.target.sop_instance, outcome.status
        self._ended.add(uid)
        if status == SUCCESS:
            self.completed += 1
        elif status is not None and (status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)):
            self.warning += 1
        else:
            self.failed_instances.append(uid)
            return
        self.bytes += outcome.size

    def fail_the_rest(self) -> None:
        """Count as failed whatever did not end; raises what ended the expansion."""
        for target in self._expansion.completed():
            if target.sop_instance not in self._ended:
                self.count(Outcome(target, None))

    def counters(self, *, remaining: bool) -> dict[str, int]:
        """Give the counters as command elements; only a pending or cancelled response names the remaining.

        Each is a 16-bit number: of more sub-operations than that it says 65,535.
        """
        counts = {
            "NumberOfCompletedSuboperations": self.completed,
            "NumberOfFailedSuboperations": self.failed,
            "NumberOfWarningSuboperations": self.warning,
        }
        if remaining:
            counts["NumberOfRemainingSuboperations"] = self.remaining
        return {keyword: min(count, _MOST) for keyword, count in counts.items()}

    @property
    def succeeded(self) -> bool:
        """Say whether anything arrived."""
        return bool(self.completed or self.warning)

    def final(self) -> Status:
        """Give the final status of a retrieve that ran to its end."""
        if self.failed and not self.succeeded:
            return Status(ALL_SUB_OPERATIONS_FAILED, "no instance could be sent")
        if self.failed or self.warning:
            return Status(SUB_OPERATIONS_FAILED, "some instances failed or had warnings")
        return Status(SUCCESS, "")
