"""Answer the DICOMweb requests of the embedded archive (PS3.18 chapter 10)."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.embedded import accept, retrieve, search
from gateway.embedded.accept import Form
from gateway.embedded.files import Files
from gateway.embedded.frames import NoFrame, read_frames
from gateway.embedded.index import Index
from gateway.embedded.lookup import Stored
from gateway.embedded.middleware import EveryRequest
from gateway.embedded.query import INSTANCE, LEVELS, SERIES, STUDY, UIDS, QueryError, parse
from gateway.embedded.receiving import Receiving
from gateway.embedded.requests import path_of, version_of
from gateway.embedded.stow import Store
from gateway.embedded.switches import Switches
from gateway.embedded.transcoding import explicit
from gateway.errors import TranscodingError

_BATCH: Final = 20
"""Instances whose metadata are held at a time."""
_SEARCHED: Final = {"studies": STUDY, "series": SERIES, "instances": INSTANCE}

log = structlog.get_logger("gateway")


class Service:
    """Hold what the routes need: the index, the files and the switches."""

    def __init__(self, index: Index, files: Files, switches: Switches) -> None:
        self._index = index
        self._files = files
        self._switches = switches
        self._receiving = Receiving(Store(index, files, switches), switches)

    def application(self) -> Starlette:
        """Return the ASGI application with all routes, under /v1 and /v2."""
        study = "/studies/{study}"
        series = study + "/series/{series}"
        instance = series + "/instances/{instance}"
        retrieved = (study, series, instance)
        searched = (
            "/studies",
            "/series",
            "/instances",
            study + "/series",
            study + "/instances",
            series + "/instances",
        )
        handlers: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
            ("POST", self._receiving.post, ("/studies", study)),
            ("PUT", self._receiving.put, ("/studies", study)),
            ("GET", self.search, searched),
            ("GET", self.retrieve, retrieved),
            ("GET", self.metadata, tuple(path + "/metadata" for path in retrieved)),
            ("GET", self.frames, (instance + "/frames/{frames}",)),
            ("DELETE", self.delete, retrieved),
        )
        application = Starlette(
            routes=[
                Route("/health/check", self.health, methods=["GET"]),
                *(
                    Route(version + path, handler, methods=[method])
                    for version in ("/v1", "/v2")
                    for method, handler, paths in handlers
                    for path in paths
                ),
            ]
        )
        application.add_middleware(EveryRequest, switches=self._switches)
        return application

    def health(self, _: Request) -> Response:
        """Say whether the archive can be used."""
        try:
            with self._index.reading() as lookup:
                lookup.place("0")
        except sqlite3.Error as error:
            log.error("embedded_archive_broken", error=type(error).__name__)
            return JSONResponse({"overallStatus": "Unhealthy"}, 503)
        return JSONResponse({"overallStatus": "Healthy"})

    def search(self, request: Request) -> Response:
        """Search for studies, series or instances."""
        _need_json(request)
        path = path_of(request)
        level = _SEARCHED[request.url.path.rsplit("/", 1)[1]]
        levels = [one for one in LEVELS[: LEVELS.index(level) + 1] if one not in path]
        faults = self._switches.faults
        try:
            query = parse(request.query_params.multi_items(), levels, [UIDS[one] for one in path])
        except QueryError as error:
            raise HTTPException(400, str(error)) from error
        query.offset = max(0, query.offset - faults.repeated)
        with self._index.reading() as lookup:
            found = search.answer(lookup, level, path, query, former=version_of(request) == "v1")
        if not found:
            return Response(status_code=204)
        return Response("[" + ",".join(found[: faults.short_page]) + "]", media_type=accept.DICOM_JSON)

    def retrieve(self, request: Request) -> Response:
        """Retrieve the instances of a study or series, or one instance."""
        single = INSTANCE in request.path_params
        form = _form(request, accept.INSTANCE if single else accept.STUDY_OR_SERIES)
        found = self._found(request)
        if len(found) > 1 and form.transfer_syntax != accept.STORED:
            raise HTTPException(406, "several instances come in the transfer syntax that they are stored in only")
        if form.transfer_syntax not in (accept.STORED, found[0].transfer_syntax):
            return self._transcoded(found[0], form)
        if form.multipart:
            paths = ((one.transfer_syntax, retrieve.pieces(self._path(one))) for one in found)
            return self._multipart(form, paths)
        length = str(self._path(found[0]).stat().st_size)
        typed = _typed(form, found[0].transfer_syntax)
        return StreamingResponse(retrieve.pieces(self._path(found[0])), 200, {"Content-Length": length}, typed)

    def _transcoded(self, stored: Stored, form: Form) -> Response:
        if form.transfer_syntax != accept.EXPLICIT:
            raise HTTPException(406, "the service does not compress")
        try:
            file = explicit(self._path(stored))
        except TranscodingError as error:
            raise HTTPException(406, str(error)) from error
        if form.multipart:
            return self._multipart(form, [(form.transfer_syntax, retrieve.rest(file))])
        return StreamingResponse(retrieve.rest(file), media_type=_typed(form, form.transfer_syntax))

    def frames(self, request: Request) -> Response:
        """Retrieve frames of an instance."""
        form = _form(request, accept.FRAMES)
        texts = request.path_params["frames"].split(",")
        if not all(text.isascii() and text.isdigit() and len(text) < 10 and int(text) for text in texts):
            raise HTTPException(400, "a frame number is not a positive integer")
        if len(texts) > 1 and not form.multipart:
            raise HTTPException(400, "several frames need a multipart answer")
        path = self._path(self._found(request)[0])
        try:
            syntax, frames = read_frames(path, [int(text) for text in texts], form.transfer_syntax)
            first = next(frames)
        except NoFrame as error:
            raise HTTPException(404, "there is no such frame") from error
        except TranscodingError as error:
            raise HTTPException(406, str(error)) from error
        if form.multipart:
            return self._multipart(form, ((syntax, [frame]) for frame in chain([first], frames)))
        frames.close()
        return Response(first, media_type=_typed(form, syntax))

    def metadata(self, request: Request) -> Response:
        """Retrieve the metadata of all instances of a study, series or instance."""
        _need_json(request)
        found = self._found(request)
        newest = max(one.key for one in found)
        tag = str(newest) if INSTANCE in request.path_params else f"{newest}-{len(found)}"
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304)
        return StreamingResponse(self._models(found), 200, {"ETag": tag}, accept.DICOM_JSON)

    def _models(self, found: Sequence[Stored]) -> Iterator[str]:
        """Yield the JSON array of the instances' metadata, some at a time."""
        before = "[{"
        for at in range(0, len(found), _BATCH):
            with self._index.reading() as lookup:
                models = lookup.models([one.key for one in found[at : at + _BATCH]])
            if models:
                yield before + "},{".join(models)
                before = "},{"
        yield "}]" if before == "},{" else "[]"

    def delete(self, request: Request) -> Response:
        """Delete a study, series or instance at once."""
        removed = self._index.remove(*path_of(request).values())
        self._files.discard(self._files.path(name) for name in removed)
        if not removed:
            raise HTTPException(404, "there is no such resource")
        return Response(status_code=204)

    def _found(self, request: Request) -> list[Stored]:
        with self._index.reading() as lookup:
            found = lookup.instances(*path_of(request).values())
        if not found:
            raise HTTPException(404, "there is no such resource")
        return found

    def _path(self, stored: Stored) -> Path:
        return self._files.path(stored.file)

    def _multipart(self, form: Form, parts: Iterable[tuple[str, Iterable[bytes]]]) -> Response:
        mark = retrieve.boundary()
        star = self._switches.faults.star
        typed = ((_typed(form, accept.STORED if star else syntax), chunks) for syntax, chunks in parts)
        body = retrieve.blocks(retrieve.multipart(typed, mark))
        after = self._switches.cut_after()
        response = StreamingResponse(body if after is None else retrieve.cut(body, after))
        response.headers["Content-Type"] = f"multipart/related; boundary={mark}"
        return response


def _need_json(request: Request) -> None:
    if not accept.takes_json(request.headers.getlist("accept")):
        raise HTTPException(406, "")


def _form(request: Request, offers: Sequence[accept.Offer]) -> Form:
    try:
        return accept.choose(request.headers.getlist("accept"), offers)
    except accept.NotAcceptable as error:
        raise HTTPException(406, "") from error


def _typed(form: Form, syntax: str) -> str:
    return f"{form.media}; transfer-syntax={syntax}"
