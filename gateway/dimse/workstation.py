"""Be a modality and a workstation for the demonstration: pynetdicom, so that not our own code judges ours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import AllStoragePresentationContexts, build_context

from gateway.dimse.negotiation import FIND_MODELS, MOVE_MODELS, VERIFICATION
from gateway.errors import PeerError
from gateway.translate.part10 import read_file_meta

_FIND, _MOVE = list(FIND_MODELS)[1], list(MOVE_MODELS)[1]  # Study Root
_STATUS = "Status"


@dataclass(slots=True)
class Received:
    """Collect what a receiver got: SOP Instance UID -> (transfer syntax, data set)."""

    instances: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def take(self, event: evt.Event) -> int:
        """Take one instance."""
        request = event.request
        if not isinstance(request, C_STORE) or request.DataSet is None:
            return 0xC000
        uid = str(request.AffectedSOPInstanceUID)
        self.instances[uid] = (str(event.context.transfer_syntax), bytes(request.DataSet.getvalue()))
        return 0x0000


@dataclass(frozen=True, slots=True)
class Workstation:
    """Call a gateway at host and port by its title."""

    title: str
    host: str
    port: int
    called: str

    def echo(self) -> int:
        """Send C-ECHO and give its status."""
        with self._associated([(VERIFICATION, None)]) as association:
            return _status(association.send_c_echo())

    def store(self, paths: Sequence[Path]) -> list[int]:
        """Send files as they are over one association and give their statuses."""
        _config.STORE_SEND_CHUNKED_DATASET = True
        contexts = []
        for path in paths:
            with path.open("rb") as file:
                meta = read_file_meta(file)
            contexts.append((meta.sop_class, meta.transfer_syntax))
        with self._associated(list(dict.fromkeys(contexts))) as association:
            return [_status(association.send_c_store(path)) for path in paths]

    def find(self, **keys: str) -> list[Dataset]:
        """Query in the Study Root model; raises PeerError unless the final status is success."""
        with self._associated([(_FIND, None)]) as association:
            found, status = [], -1
            for answer, identifier in association.send_c_find(_identifier(keys), _FIND):
                status = _status(answer)
                if identifier is not None:
                    found.append(identifier)
        if status != 0x0000:
            raise PeerError(f"C-FIND ended with status {status:04X}H")
        return found

    def move(self, destination: str, **keys: str) -> int:
        """Have instances moved to a destination and give the final status."""
        with self._associated([(_MOVE, None)]) as association:
            status = -1
            for answer, _ in association.send_c_move(_identifier(keys), destination, _MOVE):
                status = _status(answer)
        return status

    @contextmanager
    def _associated(self, contexts: Sequence[tuple[str, str | None]]) -> Iterator[Association]:
        entity = AE(ae_title=self.title)
        for uid, syntax in contexts:
            entity.add_requested_context(uid, syntax) if syntax else entity.add_requested_context(uid)
        association = entity.associate(self.host, self.port, ae_title=self.called)
        if not association.is_established:
            raise PeerError("the gateway gave no association")
        try:
            yield association
        finally:
            association.release()


@contextmanager
def receiving(title: str, syntaxes: Sequence[str]) -> Iterator[tuple[int, Received]]:
    """Run a storage SCP on a free loopback port; gives the port and what it received."""
    received = Received()
    entity = AE(ae_title=title)
    entity.supported_contexts = [
        build_context(str(context.abstract_syntax), list(syntaxes)) for context in AllStoragePresentationContexts
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, received.take)])
    if server is None:
        raise PeerError("the receiver could not be started")
    try:
        yield int(server.server_address[1]), received
    finally:
        server.shutdown()


def _identifier(keys: dict[str, str]) -> Dataset:
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _status(answer: Dataset) -> int:
    return int(answer.Status) if _STATUS in answer else -1
