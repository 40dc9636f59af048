"""Set up structured logging: one line per operation at its end, never patient data."""

import logging
import re
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.dev import ConsoleRenderer
from structlog.typing import EventDict, Processor, WrappedLogger

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PARTS = frozenset(("stack", "exception", "exc_info", "logger", "logger_name"))
_QUOTED = re.compile("[ \t=\r\n\"']")


class _Unfailing:
    """Write to a file, or lose the line: a full disk below the log must not end what is being logged."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write a text."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with suppress(OSError):
            self._file.flush()


class Plain:
    """Render a line without colors as structlog does, in a quarter of the time: it is a part of each C-STORE."""

    def __init__(self) -> None:
        self._any = ConsoleRenderer(colors=False, pad_event_to=0)

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        """Return the line, without its end."""
        if not _PARTS.isdisjoint(event):
            return self._any(logger, name, event)
        head = f"{event.pop('timestamp')} [{event.pop('level'):9}] {event.pop('event')}"
        return " ".join((head, *[f"{key}={_shown(event[key])}" for key in sorted(event)])).rstrip(" ")


def _shown(value: object) -> str:
    return value if isinstance(value, str) and not _QUOTED.search(value) else repr(value)


def set_up(level: str, form: str) -> None:
    """Send log lines to standard error, as text for people (`console`) or one JSON object a line (`json`)."""
    last: Processor
    if form == "json":
        last = structlog.processors.JSONRenderer()
    else:
        last = ConsoleRenderer(colors=True, pad_event_to=0) if sys.stderr.isatty() else Plain()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _one_line,
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    # It names values, and shows a trace for each frame that it cannot decode; what failed is said by who asked.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def _one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape what a peer could use to forge a line: control characters in AE titles and the like."""
    return {
        key: value if not isinstance(value, str) or value.isprintable() else _escaped(value)
        for key, value in event.items()
    }


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
