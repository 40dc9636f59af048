"""Answer the browser, Prometheus and whoever asks for the gateway's health."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.admin.chart import HEIGHT, WIDTH
from gateway.admin.health import checks, is_ready
from gateway.admin.overview import MOST_STUDIES, Overview, overview
from gateway.admin.parts import Parts
from gateway.admin.scrape import Scrape
from gateway.admin.watch import Watch
from gateway.config import Config
from gateway.errors import GatewayError

log = structlog.get_logger("gateway.admin")

_FRESH = 1.0  # seconds for which all viewers see the same look at the gateway
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


class Pages:
    """Answer every request; use `application`."""

    def __init__(self, parts: Parts, watch: Watch) -> None:
        self._parts = parts
        self._watch = watch
        self._scrape = Scrape(parts, watch)
        self._turn = threading.Lock()
        self._seen: tuple[float, Overview] | None = None
        self._config = shown(parts.config)
        self._templates = Environment(
            loader=PackageLoader("gateway.admin"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters |= {"ago": ago, "size": size, "duration": duration}

    def application(self) -> Starlette:
        """Give the ASGI application, without any guard."""
        return Starlette(
            routes=[
                Route("/", self._page),
                Route("/live", self._live),
                Route("/outbox/{action}", self._change, methods=["POST"]),
                Route("/echo", self._echo, methods=["POST"]),
                Route("/metrics", self._metrics),
                Route("/health/live", self._alive),
                Route("/health/ready", self._ready),
                Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
            ]
        )

    def _page(self, _: Request) -> Response:
        return self._rendered("page.html", config=self._config, title=", ".join(self._parts.config.ae_titles))

    def _live(self, _: Request) -> Response:
        return self._rendered("live.html")

    def _change(self, request: Request) -> Response:
        action = request.path_params["action"]
        study, archive = (request.query_params.get(name, "") for name in ("study", "archive"))
        outbox = self._parts.outbox
        changes: dict[str, Callable[[str, str], int]] = {
            "retry": outbox.retry_now,
            "hold": outbox.hold,
            "release": outbox.release,
        }
        if action not in changes or not (study or archive):
            return HTMLResponse("there is no such action", 404)
        try:
            count = changes[action](study, archive)
        except GatewayError as error:
            return self._said(f"{action} failed: {error}", failed=True)
        log.info("operator", action=action, study=study, archive=archive, instances=count)
        return self._said(f"{action}: {count} instance{'s' if count != 1 else ''}")

    def _echo(self, request: Request) -> Response:
        title = request.query_params.get("title", "")
        if title not in self._parts.config.peers:
            return HTMLResponse("there is no such peer", 404)
        begun = time.monotonic()
        try:
            self._parts.echo(title)
        except GatewayError as error:
            log.info("operator", action="echo", peer=title, reason=str(error))
            return self._said(str(error), failed=True)
        log.info("operator", action="echo", peer=title)
        return self._said(f"{title} answers in {(time.monotonic() - begun) * 1000:.0f} ms")

    def _metrics(self, request: Request) -> Response:
        content, content_type = self._scrape.written(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    def _alive(self, _: Request) -> Response:
        return JSONResponse({"status": "live"})

    def _ready(self, _: Request) -> Response:
        found = checks(self._parts, dict(self._watch.probes))
        ready = is_ready(found)
        content = {
            "status": "ready" if ready else "not ready",
            "checks": [{"name": one.name, "state": one.state, "detail": one.detail} for one in found],
        }
        return JSONResponse(content, 200 if ready else 503)

    def _said(self, words: str, *, failed: bool = False) -> Response:
        """Show the page anew, with what came of an action."""
        with self._turn:
            self._seen = None
        return self._rendered("live.html", said=words, failed=failed)

    def _rendered(self, template: str, *, said: str = "", failed: bool = False, **more: str) -> Response:
        try:
            view = self._look()
        except GatewayError as error:
            return HTMLResponse(self._templates.get_template("broken.html").render(reason=str(error)), 503)
        text = self._templates.get_template(template).render(
            view=view,
            ready=is_ready(view.checks),
            now=time.time(),
            most_studies=MOST_STUDIES,
            width=WIDTH,
            height=HEIGHT,
            said=said,
            failed=failed,
            **more,
        )
        return HTMLResponse(text)

    def _look(self) -> Overview:
        with self._turn:
            if self._seen is None or time.monotonic() - self._seen[0] > _FRESH:
                self._seen = (time.monotonic(), overview(self._parts, dict(self._watch.probes)))
            return self._seen[1]


def shown(config: Config) -> str:
    """Write a configuration for people, without its secrets."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return _CREDENTIALS.sub("//***@", text)


def ago(then: float, now: float) -> str:
    """Say how long ago a time is."""
    return f"{duration(max(0.0, now - then))} ago" if then else "never"


def duration(seconds: float) -> str:
    """Say a duration in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(number: float) -> str:
    """Say a number of bytes in its largest unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
