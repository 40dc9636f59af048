"""Tell whoever wants to know how an archive's answers come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from gateway.errors import ArchiveError

Observe = Callable[[str, str, float], None]
"""Be told of a request: the operation, the HTTP status or why there was none, seconds until the answer began."""

_SEARCHES = frozenset(("studies", "series", "instances"))


@contextmanager
def observed(observe: Observe, method: str, url: str) -> Iterator[Callable[[int], None]]:
    """Observe one request; what it gives is to be told the status of the answer."""
    begun, seconds, outcome = monotonic(), 0.0, ""

    def note(status: int) -> None:
        nonlocal seconds, outcome
        seconds, outcome = monotonic() - begun, str(status)

    try:
        yield note
    except ArchiveError as error:
        outcome = outcome or type(error).__name__
        raise
    finally:
        observe(operation(method, url), outcome or "failed", seconds or monotonic() - begun)


def operation(method: str, url: str) -> str:
    """Name the operation that a request belongs to (PS3.18 10)."""
    if method == "POST":
        return "STOW-RS"
    if method == "DELETE":
        return "DELETE"
    return "QIDO-RS" if url.partition("?")[0].rpartition("/")[2] in _SEARCHES else "WADO-RS"
