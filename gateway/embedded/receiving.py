"""Answer STOW-RS requests: the body is written down as it arrives (PS3.18 10.5)."""

import sqlite3
from collections.abc import Iterator
from typing import Final

import structlog
from anyio import CapacityLimiter, from_thread, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway.embedded import judging
from gateway.embedded.accept import DICOM_JSON, takes_json
from gateway.embedded.judging import Terms
from gateway.embedded.query import STUDY
from gateway.embedded.requests import path_of, version_of
from gateway.embedded.stow import MediaTypeError, RequestError, Store
from gateway.embedded.switches import Switches
from gateway.errors import MultipartError

_PIECE: Final = 1 << 18
"""Bytes of a body that are collected before they change threads."""
_UPLOADS: Final = 32
"""Requests that store at the same time, in threads of their own: slow uploads must not keep searches waiting."""
_LARGEST_MANAGED: Final = 4 << 30

log = structlog.get_logger("gateway")


class Receiving:
    """Hold what STOW-RS needs."""

    def __init__(self, store: Store, switches: Switches) -> None:
        self._store = store
        self._switches = switches
        self._threads = CapacityLimiter(_UPLOADS)

    async def post(self, request: Request) -> Response:
        """Store the instances of a request."""
        return await self._receive(request, replace=False)

    async def put(self, request: Request) -> Response:
        """Store the instances of a request, in the place of those that are there; the managed service only."""
        if not self._switches.faults.managed:
            raise HTTPException(405)
        return await self._receive(request, replace=True)

    async def _receive(self, request: Request, *, replace: bool) -> Response:
        managed = self._switches.faults.managed
        if not takes_json(request.headers.getlist("accept")):
            raise HTTPException(406, "")
        study = path_of(request).get(STUDY, "")
        if managed and int(request.headers.get("content-length", "0")) > _LARGEST_MANAGED:
            raise HTTPException(413, "the request is too large")
        version = version_of(request)
        base = f"{request.url.scheme}://{request.url.netloc}/{version}"
        terms = Terms(base, study, strict=version == "v1", managed=managed, replace=replace)
        content_type = request.headers.get("content-type", "")
        stream = request.stream()

        async def collect() -> bytes:
            collected: list[bytes] = []
            size = 0
            async for chunk in stream:
                collected.append(chunk)
                size += len(chunk)
                if size >= _PIECE:
                    break
            return b"".join(collected)

        first = await collect()

        def body() -> Iterator[bytes]:
            chunk = first
            while chunk:
                yield chunk
                chunk = from_thread.run(collect) if len(chunk) >= _PIECE else b""

        return await to_thread.run_sync(self._stored, content_type, body(), terms, limiter=self._threads)

    def _stored(self, content_type: str, body: Iterator[bytes], terms: Terms) -> Response:
        try:
            judged = self._store.store(content_type, body, terms)
        except ClientDisconnect as error:
            raise HTTPException(400, "the body was aborted") from error
        except (MediaTypeError, RequestError, MultipartError, OSError, sqlite3.Error) as error:
            raise _refusal(error) from error
        if not judged:
            return Response(status_code=204)
        status, model = judging.answer(judged, terms)
        headers = {}
        if judging.several_values(judged):
            headers["Warning"] = f'299 {terms.base} "an indexed attribute has several values, the first is searched"'
        return JSONResponse(model, status, headers, DICOM_JSON)


def _refusal(error: Exception) -> HTTPException:
    if isinstance(error, MediaTypeError):
        return HTTPException(415, "the Content-Type is not supported")
    if isinstance(error, RequestError | MultipartError):
        return HTTPException(400, str(error))
    log.error("embedded_archive_cannot_receive", error=type(error).__name__)
    return HTTPException(503, "the archive cannot write")
