"""Answer the DICOMweb requests of the embedded archive (PS3.18 chapter 10)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from http import HTTPStatus
from typing import Any, Final

import structlog
from anyio import from_thread, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.embedded import retrieve, search
from gateway.embedded.files import Files
from gateway.embedded.frames import NoFrame, read_frames
from gateway.embedded.index import Index, Stored
from gateway.embedded.middleware import FaultyMiddleware
from gateway.embedded.query import INSTANCE, SERIES, STUDY, UIDS, QueryError, is_uid, parse
from gateway.embedded.stow import MediaTypeError, RequestError, Result, Store
from gateway.embedded.switches import Switches
from gateway.embedded.transcoding import explicit
from gateway.errors import MultipartError, TranscodingError

_JSON: Final = "application/dicom+json"
_DICOM: Final = "application/dicom"
_PIECE: Final = 1 << 18
_BATCH: Final = 100
_LEVELS: Final = (STUDY, SERIES, INSTANCE)
_SEARCHED: Final = {"studies": STUDY, "series": SERIES, "instances": INSTANCE}


class Service:
    """Hold what the routes need: the index, the files and the switches."""

    def __init__(self, index: Index, files: Files, switches: Switches) -> None:
        self._index = index
        self._files = files
        self._switches = switches
        self._store = Store(index, files, switches)

    def application(self) -> Starlette:
        """Return the ASGI application with all routes, under /v1 and /v2."""
        study = "/studies/{study}"
        series = study + "/series/{series}"
        instance = series + "/instances/{instance}"
        searched = (
            "/studies",
            "/series",
            "/instances",
            study + "/series",
            study + "/instances",
            series + "/instances",
        )
        handlers: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
            ("POST", self.stow, ("/studies", study)),
            ("GET", self.qido, searched),
            ("GET", self.wado, (study, series, instance)),
            ("GET", self.metadata, tuple(path + "/metadata" for path in (study, series, instance))),
            ("GET", self.frames, (instance + "/frames/{frames}",)),
            ("DELETE", self.delete, (study, series, instance)),
        )
        application = Starlette(
            routes=[
                Route(version + path, handler, methods=[method])
                for version in ("/v1", "/v2")
                for method, handler, paths in handlers
                for path in paths
            ]
        )
        application.add_middleware(FaultyMiddleware, switches=self._switches)
        return application

    async def stow(self, request: Request) -> Response:
        """Store the instances of a request; the body is written down as it arrives."""
        try:
            _need_json(request)
            study = _path(request).get(STUDY, "")
        except HTTPException:
            async for _ in request.stream():
                pass  # a client that still sends would lose the answer to a reset connection
            raise
        version = request.url.path.split("/")[1]
        base = f"{request.url.scheme}://{request.url.netloc}/{version}"
        result = Result(base, study, strict=version == "v1")
        stream = request.stream()

        async def collect() -> bytes:
            collected = bytearray()
            async for chunk in stream:
                collected += chunk
                if len(collected) >= _PIECE:
                    break
            return bytes(collected)

        def body() -> Iterator[bytes]:
            while chunk := from_thread.run(collect):
                yield chunk

        return await to_thread.run_sync(self._stow, request.headers.get("content-type", ""), body(), result)

    def _stow(self, content_type: str, body: Iterator[bytes], result: Result) -> Response:
        try:
            self._store.store(content_type, body, result)
        except MediaTypeError as error:
            _drain(body)
            raise HTTPException(415, "the Content-Type is not supported") from error
        except (RequestError, MultipartError) as error:
            _drain(body)
            raise HTTPException(400, str(error)) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the body was aborted") from error
        except OSError as error:
            structlog.get_logger().error("embedded_archive_cannot_receive", error=type(error).__name__)
            _drain(body)
            raise HTTPException(503, "the archive cannot write") from error
        if result.status() == HTTPStatus.NO_CONTENT:
            return Response(status_code=204)
        return _json(result.model(), result.status())

    def qido(self, request: Request) -> Response:
        """Search for studies, series or instances."""
        _need_json(request)
        path = _path(request)
        level = _SEARCHED[request.url.path.rsplit("/", 1)[1]]
        levels = [one for one in _LEVELS[: _LEVELS.index(level) + 1] if one not in path]
        if level == INSTANCE and SERIES in path:
            levels = [INSTANCE]
        try:
            query = parse(request.query_params.multi_items(), levels, [UIDS[one] for one in path])
        except QueryError as error:
            raise HTTPException(400, str(error)) from error
        short = self._switches.short_page
        former = request.url.path.startswith("/v1/")
        found = search.answer(self._index, level, path, query, former=former)
        if not found:
            return Response(status_code=204)
        return _json(found if short is None else found[:short], 200)

    def wado(self, request: Request) -> Response:
        """Retrieve the instances of a study or series, or one instance."""
        single = "instance" in request.path_params
        form = _form(request, media=_DICOM, single=single)
        found = self._found(request)
        if len(found) > 1 and form.transfer_syntax != "*":
            raise HTTPException(406, "several instances come in the transfer syntax that they are stored in only")
        if form.transfer_syntax != "*" and found[0].transfer_syntax != form.transfer_syntax:
            return self._transcoded(found[0], form)
        if not form.multipart:
            path = self._files.path(found[0].file)
            return StreamingResponse(
                retrieve.pieces(path),
                media_type=_typed(found[0].transfer_syntax),
                headers={"Content-Length": str(path.stat().st_size)},
            )
        parts = ((_typed(one.transfer_syntax), retrieve.pieces(self._files.path(one.file))) for one in found)
        return self._multipart(parts)

    def _transcoded(self, stored: Stored, form: retrieve.Form) -> Response:
        if form.transfer_syntax != retrieve.EXPLICIT:
            raise HTTPException(406, "the service does not compress")
        with ExitStack() as stack:
            try:
                path = stack.enter_context(explicit(self._files.path(stored.file)))
            except TranscodingError as error:
                raise HTTPException(406, str(error)) from error
            held = stack.pop_all()

        def chunks() -> Iterator[bytes]:
            with held:
                yield from retrieve.pieces(path)

        if form.multipart:
            return self._multipart(iter([(_typed(retrieve.EXPLICIT), chunks())]))
        return StreamingResponse(chunks(), media_type=_typed(retrieve.EXPLICIT))

    def frames(self, request: Request) -> Response:
        """Retrieve frames of an instance."""
        media = "application/octet-stream"
        form = _form(request, media=media, single=True)
        texts = request.path_params["frames"].split(",")
        if not all(text.isascii() and text.isdigit() and len(text) < 10 and int(text) for text in texts):
            raise HTTPException(400, "a frame number is not a positive integer")
        if len(texts) > 1 and not form.multipart:
            raise HTTPException(400, "several frames need a multipart answer")
        found = self._found(request)
        path = self._files.path(found[0].file)
        try:
            syntax, read = read_frames(path, [int(text) for text in texts], form.transfer_syntax)
        except NoFrame as error:
            raise HTTPException(404, "there is no such frame") from error
        except TranscodingError as error:
            raise HTTPException(406, str(error)) from error
        if not form.multipart:
            return Response(read[0], media_type=_typed(syntax, media))
        return self._multipart((_typed(syntax, media), iter([frame])) for frame in read)

    def metadata(self, request: Request) -> Response:
        """Retrieve the metadata of all instances of a study, series or instance."""
        _need_json(request)
        found = self._found(request)
        newest = max(one.key for one in found)
        tag = str(newest) if "instance" in request.path_params else f"{newest}-{len(found)}"
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304)
        return StreamingResponse(self._models(found), media_type=_JSON, headers={"ETag": tag})

    def _models(self, found: Sequence[Stored]) -> Iterator[str]:
        """Yield the JSON array of the instances' metadata, some at a time."""
        comma = "["
        for at in range(0, len(found), _BATCH):
            models = self._index.models([one.key for one in found[at : at + _BATCH]])
            if models:
                yield comma + ",".join(models)
                comma = ","
        yield "]" if comma == "," else "[]"

    def delete(self, request: Request) -> Response:
        """Delete a study, series or instance at once."""
        path = _path(request)
        removed = self._index.remove(*path.values())
        for name in removed:
            self._files.discard(self._files.path(name))
        if not removed:
            raise HTTPException(404, "there is no such resource")
        return Response(status_code=204)

    def _found(self, request: Request) -> list[Stored]:
        path = _path(request)
        found = self._index.instances(*path.values())
        if not found:
            raise HTTPException(404, "there is no such resource")
        return found

    def _multipart(self, parts: Iterator[tuple[str, Iterator[bytes]]]) -> Response:
        mark = retrieve.boundary()
        body = retrieve.multipart(parts, mark, cut=self._switches.cut())
        response = StreamingResponse(body)
        response.headers["Content-Type"] = f"multipart/related; boundary={mark}"
        return response


def _path(request: Request) -> dict[str, str]:
    path: dict[str, str] = {level: request.path_params[level] for level in _LEVELS if level in request.path_params}
    if not all(is_uid(uid) for uid in path.values()):
        raise HTTPException(400, "the URL has a malformed UID")
    return path


def _need_json(request: Request) -> None:
    if not retrieve.takes_json(request.headers.getlist("accept")):
        raise HTTPException(406, "")


def _form(request: Request, *, media: str, single: bool) -> retrieve.Form:
    try:
        return retrieve.choose(request.headers.getlist("accept"), media=media, single=single)
    except retrieve.NotAcceptable as error:
        raise HTTPException(406, "") from error


def _drain(body: Iterator[bytes]) -> None:
    """Read what the client still sends; it would lose the answer to a reset connection."""
    with suppress(ClientDisconnect):  # then nobody waits for the answer
        for _ in body:
            pass


def _typed(syntax: str, media: str = _DICOM) -> str:
    return f"{media}; transfer-syntax={syntax}"


def _json(model: Mapping[str, Any] | list[dict[str, Any]], status: int) -> Response:
    return Response(json.dumps(model), status_code=status, media_type=_JSON)
