"""Exchange DIMSE messages on an established association, in either role (PS3.7 chapter 6, PS3.8 Annex E)."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from gateway.dimse import commands
from gateway.dimse.commands import Command, number
from gateway.dimse.pdu import (
    ABORT,
    BY_PROVIDER,
    BY_USER,
    P_DATA,
    RELEASE_REQUEST,
    RELEASE_RESPONSE,
    RELEASE_RP,
    RELEASE_RQ,
    UNEXPECTED_PDU,
    PduError,
    encode_abort,
)
from gateway.dimse.upper_layer import (
    Buffer,
    Connection,
    ConnectionLost,
    Fragment,
    TimeIsUp,
    data_pdus,
    fragments,
)
from gateway.errors import GatewayError, PeerError

_LONGEST_COMMAND = 65_536
_READ = 1 << 20
_TICK = 0.5  # seconds
_LONGEST_SENT = 131_072  # also to a peer that takes more or sets no limit: a whole PDU is in memory


class PeerAborted(PeerError):
    """Report an A-ABORT from the peer."""


class Released(PeerError):
    """Report that the peer released the association; it has been answered."""


@dataclass(frozen=True, slots=True)
class Context:
    """Hold an accepted presentation context; `scp` says that we may send it requests (the peer is SCP)."""

    identifier: int
    abstract_syntax: str
    transfer_syntax: str
    peer_is_scp: bool = False


class Sink(Protocol):
    """Take the fragments of one data set."""

    def write(self, pieces: list[memoryview]) -> None:
        """Take fragments, valid during the call only."""


class Memory:
    """Collect a data set in memory, up to `limit` bytes; more breaks the association."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def write(self, pieces: list[memoryview]) -> None:
        """Take fragments; raises PduError beyond the limit."""
        for piece in pieces:
            self._data += piece
        if len(self._data) > self._limit:
            raise PduError(f"a data set has more than {self._limit} bytes")

    def data(self) -> bytes:
        """Give the whole data set."""
        return bytes(self._data)


@dataclass(slots=True)
class Message:
    """Hold a received message: its context, command set and the sink that took its data set, if any."""

    context: Context
    command: Command
    sink: Sink | None = None

    @property
    def data(self) -> bytes:
        """Give a data set that was collected in memory, empty when there was none."""
        return self.sink.data() if isinstance(self.sink, Memory) else b""

    @property
    def identifier(self) -> int:
        """Give the Message ID."""
        return number(self.command, "MessageID")


@dataclass(slots=True)
class _Incoming:
    """Hold the message whose fragments are arriving."""

    context: Context
    command: bytearray = field(default_factory=bytearray)
    message: Message | None = None
    pieces: list[memoryview] = field(default_factory=list)


class Association:
    """Send and receive messages; used by one thread, but for `stop`.

    `sink_for` chooses where the data set of a request goes; without it everything is collected in memory up
    to `max_identifier` bytes.
    """

    def __init__(
        self,
        connection: Connection,
        contexts: Mapping[int, Context],
        *,
        peer_max_pdu: int,
        network_timeout: float,
        max_identifier: int,
    ) -> None:
        self.connection = connection
        self.contexts = contexts
        self.sink_for: Callable[[Message], Sink] = lambda _: Memory(max_identifier)
        self._max_pdu = min(peer_max_pdu or _LONGEST_SENT, _LONGEST_SENT)
        self._timeout = network_timeout
        self._incoming: _Incoming | None = None
        self._inbox: deque[Message] = deque()
        self._operation: int | None = None
        self._cancelled = False
        self._stopping = False
        self._message_id = 0
        self._abandoned: int | None = None

    # -- receiving ---------------------------------------------------------------------------------------

    def requests(
        self, idle_timeout: float, quiet: Callable[[float], float] = lambda _: math.inf
    ) -> Iterator[Message]:
        """Yield requests until the peer releases (then it is answered) or `stop` is called between two.

        `quiet` is told for how many seconds nothing has come, and says after how many to call it again; it may send
        requests of ours, whose responses are then yielded as well. Raises PeerError when the peer aborts, breaks
        the protocol, or is silent for `idle_timeout` seconds, and whatever `quiet` raises.
        """
        while True:
            begun = time.monotonic()
            deadline = begun + idle_timeout
            while not self._inbox:
                again = quiet(time.monotonic() - begun)
                if self.connection.wait(min(again, deadline - time.monotonic())):
                    break
                if self._stopping:
                    return
                if time.monotonic() >= deadline:
                    raise TimeIsUp("the association was idle for too long")
            try:
                message = self._next_message(deadline)
            except Released:
                return
            if number(message.command, "CommandField") != commands.C_CANCEL_RQ:
                self._operation, self._cancelled = message.identifier, False
                yield message
                self._operation = None

    def response_to(self, message_id: int, timeout: float, tick: Callable[[], None] = lambda: None) -> Message:
        """Wait up to `timeout` seconds for the response to a request of ours, calling `tick` twice a second.

        Raises PeerError, and whatever `tick` raises; the response is then dropped when it comes.
        """
        deadline = time.monotonic() + timeout
        while True:
            while not self._inbox:
                if self.connection.wait(_TICK):
                    self._read(time.monotonic() + self._timeout)
                    continue
                self._abandonable(message_id, tick)
                if time.monotonic() >= deadline:
                    raise TimeIsUp("no response came in time")
            command = (message := self._inbox.popleft()).command
            if number(command, "CommandField") & 0x8000 == 0:
                self._inbox.appendleft(message)
                raise PduError("a request arrived while a response was due", UNEXPECTED_PDU)
            if number(command, "MessageIDBeingRespondedTo") == message_id:
                return message

    def _abandonable(self, message_id: int, tick: Callable[[], None]) -> None:
        try:
            tick()
        except GatewayError:
            self._abandoned = message_id
            raise

    def cancelled(self) -> bool:
        """Say whether the running operation was cancelled, having read what arrived; raises PeerError."""
        while not self._cancelled and self.connection.wait(0):
            self._read(time.monotonic() + self._timeout)
        return self._cancelled

    @property
    def operation(self) -> int | None:
        """Give the Message ID of the request that is under way."""
        return self._operation

    @property
    def stopped(self) -> bool:
        """Say whether `stop` was called."""
        return self._stopping

    @property
    def unfinished(self) -> list[Sink]:
        """Give the sinks of messages that broke off half received, or that nobody has taken yet."""
        half = [self._incoming.message] if self._incoming is not None and self._incoming.message is not None else []
        return [message.sink for message in (*self._inbox, *half) if message.sink is not None]

    def stop(self) -> None:
        """Let `requests` end as soon as no request is running; safe from any thread."""
        self._stopping = True
        self.connection.wake()

    def _next_message(self, deadline: float) -> Message:
        while not self._inbox:
            self._read(deadline if self._incoming is None else time.monotonic() + self._timeout)
        return self._inbox.popleft()

    def _read(self, deadline: float) -> None:
        """Read one PDU, and those already in the buffer behind it."""
        while True:
            kind, body = self.connection.next_pdu(deadline)
            if kind == P_DATA:
                for fragment in fragments(body):
                    self._take(fragment)
            elif kind == RELEASE_RQ:
                self.connection.send((RELEASE_RESPONSE,))
                raise Released("the peer released the association")
            elif kind == ABORT:
                raise PeerAborted("the peer aborted the association")
            else:
                raise PduError(f"a PDU of type {kind:02X}H has no place here", UNEXPECTED_PDU)
            self._take_data()
            if self._inbox or not self.connection.buffered:
                break
        if self._incoming is not None:
            self._flush(self._incoming)

    def _take(self, fragment: Fragment) -> None:
        incoming = self._incoming
        if incoming is None:
            context = self.contexts.get(fragment.context)
            if context is None:
                raise PduError("a presentation context that was not accepted")
            incoming = self._incoming = _Incoming(context)
        if fragment.context != incoming.context.identifier or fragment.command != (incoming.message is None):
            raise PduError("the fragments of two messages are mixed")
        if fragment.command:
            incoming.command += fragment.data
            if len(incoming.command) > _LONGEST_COMMAND:
                raise PduError("the command set is too long")
            if fragment.last:
                self._begin(incoming)
            return
        incoming.pieces.append(fragment.data)
        if fragment.last:
            self._flush(incoming)
            self._deliver(incoming)

    def _take_data(self) -> None:
        """Take what is in the buffer of a data set under way, most of which looks the same."""
        incoming = self._incoming
        if incoming is None or incoming.message is None:
            return
        if data := self.connection.data(incoming.context.identifier):
            incoming.pieces.append(data)

    def _begin(self, incoming: _Incoming) -> None:
        message = incoming.message = Message(incoming.context, commands.decode(bytes(incoming.command)))
        if number(message.command, "CommandDataSetType") == commands.DATA_SET_ABSENT:
            self._deliver(incoming)
        else:
            message.sink = self.sink_for(message)

    def _flush(self, incoming: _Incoming) -> None:
        if incoming.pieces and incoming.message is not None and incoming.message.sink is not None:
            incoming.message.sink.write(incoming.pieces)
        incoming.pieces = []

    def _deliver(self, incoming: _Incoming) -> None:
        self._incoming = None
        message = incoming.message
        if message is None:
            return
        if number(message.command, "CommandField") == commands.C_CANCEL_RQ:
            # a late or foreign cancel has no effect (PS3.7 9.3.2.3)
            if number(message.command, "MessageIDBeingRespondedTo") == self._operation:
                self._cancelled = True
            return
        if self._is_abandoned(message):
            self._abandoned = None
            return
        self._inbox.append(message)

    def _is_abandoned(self, message: Message) -> bool:
        is_response = number(message.command, "CommandField") & 0x8000
        return bool(is_response) and number(message.command, "MessageIDBeingRespondedTo") == self._abandoned

    # -- sending -----------------------------------------------------------------------------------------

    def send(self, context: Context, command: Mapping[str, int | str], data: Buffer | None = None) -> None:
        """Send a message; its Command Data Set Type is set here."""
        encoded = commands.encode(self._typed(command, present=data is not None))
        pdus = list(data_pdus(context.identifier, encoded, self._max_pdu, command=True))
        if data is not None:
            pdus.extend(data_pdus(context.identifier, data, self._max_pdu, command=False))
        self.connection.send(pdus)

    def pdus(self, context: Context, data: Buffer, *, command: bool) -> bytes:
        """Encode a command set or a whole data set as P-DATA-TF PDUs."""
        return b"".join(data_pdus(context.identifier, data, self._max_pdu, command=command))

    def send_stream(self, context: Context, command: Mapping[str, int | str], stream: BinaryIO, size: int) -> None:
        """Send a message whose data set is the next `size` bytes of a file."""
        encoded = commands.encode(self._typed(command, present=True))
        self.connection.send(data_pdus(context.identifier, encoded, self._max_pdu, command=True))
        # each read fills whole PDUs, so that none but the last is short
        pdu = (self._max_pdu - 6) & ~1
        step = max(1, _READ // pdu) * pdu
        left = size
        while True:
            wanted = min(step, left)
            block = stream.read(wanted)
            if len(block) != wanted:
                raise ConnectionLost("the instance's file ended early")
            left -= wanted
            self.connection.send(data_pdus(context.identifier, block, self._max_pdu, command=False, last=left == 0))
            if left == 0:
                return

    def next_message_id(self) -> int:
        """Give a Message ID for a request of ours."""
        self._message_id = self._message_id % 65_535 + 1
        return self._message_id

    @staticmethod
    def _typed(command: Mapping[str, int | str], *, present: bool) -> dict[str, int | str]:
        kind = commands.DATA_SET_PRESENT if present else commands.DATA_SET_ABSENT
        return {**command, "CommandDataSetType": kind}

    # -- ending ------------------------------------------------------------------------------------------

    def release(self, timeout: float) -> None:
        """Release the association as its requestor and close; raises PeerError when no answer comes."""
        try:
            self.connection.send((RELEASE_REQUEST,))
            deadline = time.monotonic() + timeout
            while self.connection.next_pdu(deadline)[0] not in (RELEASE_RP, ABORT):
                pass  # what was under way when we asked
        finally:
            self.connection.close()

    def abort(self, *, reason: int | None = None) -> None:
        """Abort the association and close; `reason` is a provider's (PS3.8 Table 9-26), none means the user's."""
        source = BY_USER if reason is None else BY_PROVIDER
        try:
            self.connection.send((encode_abort(source, reason or 0),))
            self.connection.drain(time.monotonic() + 1)
        except PeerError:
            pass  # it is gone already, which is what we wanted
        finally:
            self.connection.close()
