"""What the commands end with: one table, error -> exit code, for scripts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import typer
from rich.console import Console

from gateway import errors
from gateway.errors import GatewayError
from gateway.web.templates import TemplateError

SOME_FAILED = 1
WRONG_CALL = 2
INTERRUPTED = 130

# From the particular to the general; 2 is also what the parser of the command line ends with.
CODES: Mapping[type[Exception], int] = {
    errors.ConfigError: WRONG_CALL,
    TemplateError: WRONG_CALL,
    errors.NotFound: 3,
    errors.ArchiveUnreachable: 4,
    errors.ArchiveBusy: 4,
    errors.ArchiveBroken: 4,
    errors.AnswerUnreadable: 4,
    errors.SignInRefused: 5,
    errors.RequestRefused: 6,
    errors.TooLarge: 6,
    OSError: 7,
    GatewayError: SOME_FAILED,
}


def code(error: Exception) -> int:
    """Find the exit code for an error."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


@contextmanager
def explained(err: Console) -> Iterator[None]:
    """End the command with the error's text and exit code."""
    try:
        yield
    except (GatewayError, TemplateError) as error:
        err.print(str(error), markup=False)
        raise typer.Exit(code(error)) from error
    except OSError as error:
        err.print(f"{error.filename or 'a file'}: {error.strerror}", markup=False)
        raise typer.Exit(code(error)) from error
    except KeyboardInterrupt as error:
        err.print("interrupted")
        raise typer.Exit(INTERRUPTED) from error
