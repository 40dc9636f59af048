"""Set up structured logging: one line per operation at its end, never patient data."""

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


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


def set_up(level: str, form: str) -> None:
    """Send log lines to standard error, as text for people (`console`) or one JSON object a line (`json`)."""
    last = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
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
