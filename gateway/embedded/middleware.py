"""Stand before all routes: the faults that tests turn on, and what the service does on every route."""

from typing import Final

import structlog
from anyio import sleep
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.embedded.switches import Switches

_STATUS: Final = {"unauthorized": 401, "throttled": 429, "unavailable": 503}
_VERSIONS: Final = (b"api-supported-versions", b"1, 2")

log = structlog.get_logger("gateway")


class EveryRequest:
    """Answer instead of the application when a switch says so, or when the query has `<` in it."""

    def __init__(self, application: ASGIApp, switches: Switches) -> None:
        self._application = application
        self._switches = switches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        query = scope["query_string"].decode("latin-1")
        fault = self._switches.request(f"{scope['method']} {scope['path']}" + (f"?{query}" if query else ""))
        faults = self._switches.faults
        await sleep(faults.delay)
        if fault == "hanging":
            while (await receive())["type"] != "http.disconnect":
                pass
        elif fault:
            later = (
                {} if fault == "unauthorized" or faults.retry_after is None else {"Retry-After": faults.retry_after}
            )
            await Response(status_code=_STATUS[fault], headers=later)(scope, receive, send)
        elif "<" in query or "%3c" in query.lower():
            await Response(status_code=400)(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_versions(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], _VERSIONS]
            await send(message)

        try:
            await self._application(scope, receive, send_with_versions)
        except (ClientDisconnect, OSError) as error:
            # The client went away, or a file did: the server ends the connection, with 500 if nothing was sent yet.
            log.warning("embedded_archive_answer_cut", method=scope["method"], error=type(error).__name__)
