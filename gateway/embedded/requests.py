"""Read what all resources of the embedded archive have in their URLs."""

from starlette.exceptions import HTTPException
from starlette.requests import Request

from gateway.embedded.query import LEVELS, is_uid


def path_of(request: Request) -> dict[str, str]:
    """Return the UIDs in the URL's path by level; a malformed one is a bad request."""
    path: dict[str, str] = {
        level: request.path_params[level].rstrip(" \0") for level in LEVELS if level in request.path_params
    }
    if not all(is_uid(uid) for uid in path.values()):
        raise HTTPException(400, "the URL has a malformed UID")
    return path


def version_of(request: Request) -> str:
    """Return the version of the service that the URL names, `v1` or `v2`."""
    return request.url.path.split("/")[1]
