"""Move destinations that misbehave as told: pynetdicom's storage SCP, and a port where nobody speaks."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts, build_context

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
STORAGE_CLASSES = tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)

Behaviour = Callable[[int], "int | str"]
"""Number of a C-STORE, from 1 -> its status, or "abort", or "hang" """


@dataclass
class Received:
    sop_instance: str
    sop_class: str
    syntax: str
    originator: str
    message_id: int
    data: bytes


@dataclass
class Destination:
    """A running destination: what it received, the contexts of each association that was asked for."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    proposals: list[list[tuple[str, str]]] = field(default_factory=list)
    calling: list[str] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def peer(self) -> dict[str, Any]:
        """Its entry in a gateway's configuration."""
        return {"host": "127.0.0.1", "port": self.port}

    @property
    def associations(self) -> int:
        return len(self.proposals)


@contextmanager
def destination(
    behaviour: Behaviour = lambda _: 0,
    *,
    syntaxes: Sequence[str] = (EXPLICIT, IMPLICIT),
    classes: Sequence[str] = STORAGE_CLASSES,
    most_contexts: int | None = None,
    most_proposed: int = 128,
) -> Iterator[Destination]:
    """Run a destination; of a request it takes `most_contexts` contexts, and none of one with `most_proposed`."""
    state, lock = Destination(), threading.Lock()

    def requested(event: evt.Event) -> None:
        proposed = event.assoc.requestor.primitive.presentation_context_definition_list
        pairs = [(str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in proposed]
        with lock:
            state.proposals.append(pairs)
            state.calling.append(str(event.assoc.requestor.primitive.calling_ae_title).strip())
            state.open += 1
            state.most_open = max(state.open, state.most_open)
        if len(pairs) > most_proposed:
            event.assoc.abort()
        if most_contexts is not None:
            event.assoc.acceptor.supported_contexts = [
                build_context(*pair) for pair in pairs[:most_contexts] if pair[1] in syntaxes
            ]

    def ended(_: evt.Event) -> None:
        with lock:
            state.open -= 1

    def store(event: evt.Event) -> int:
        request = event.request
        with lock:
            state.received.append(
                Received(
                    str(request.AffectedSOPInstanceUID),
                    str(request.AffectedSOPClassUID),
                    str(event.context.transfer_syntax),
                    str(request.MoveOriginatorApplicationEntityTitle or ""),
                    int(request.MoveOriginatorMessageID or 0),
                    request.DataSet.getvalue(),
                )
            )
            number = len(state.received)
        what = behaviour(number)
        if what == "abort":
            event.assoc.abort()
            return 0xC000
        if what == "hang":
            state.over.wait(60)
            return 0xC000
        if what == "slow":
            time.sleep(0.3)
            return 0
        return int(what)

    entity = AE(ae_title="DESTINATION")
    entity.supported_contexts = [build_context(uid, list(syntaxes)) for uid in classes[:128]]
    entity.maximum_associations = 100
    handlers = [
        (evt.EVT_REQUESTED, requested),
        (evt.EVT_CONN_CLOSE, ended),
        (evt.EVT_C_STORE, store),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    state.port = int(server.server_address[1])
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()


@contextmanager
def silent() -> Iterator[int]:
    """Listen on a port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield int(listener.getsockname()[1])
