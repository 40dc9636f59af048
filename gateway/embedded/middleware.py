"""Stand before all routes: the faults that tests turn on, and what the service refuses on every route."""

from anyio import sleep
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.embedded.switches import Switches


class FaultyMiddleware:
    """Answer instead of the application when a switch says so, or when the query has `<` in it."""

    def __init__(self, application: ASGIApp, switches: Switches) -> None:
        self._application = application
        self._switches = switches

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        line = f"{scope['method']} {scope['path']}" + (f"?{query}" if query else "")
        delay = self._switches.delay
        if delay:
            await sleep(delay)
        fault = self._switches.request(line)
        if fault is None and "<" not in query and "%3c" not in query.lower():
            await self._application(scope, receive, send)
            return
        while (await receive()).get("more_body", False):
            pass  # a client that still sends would lose the answer to a reset connection
        status, retry_after = fault or (400, None)
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        await Response(status_code=status, headers=headers)(scope, receive, send)
