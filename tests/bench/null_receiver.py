"""Answer each C-STORE with Success and keep nothing, a process for each association: what load can reach here."""

import os
import signal
import socket
import sys

from bench import wire

_BUFFER = 1 << 20
_HEADER = 12  # of a P-DATA-TF PDU with one presentation data value


def main(port: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    listener = socket.create_server(("127.0.0.1", port), backlog=64)
    while True:
        sock, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                _serve(sock)
            finally:
                os._exit(0)
        sock.close()


def _serve(sock: socket.socket) -> None:
    connection = wire.Connection(sock)
    _, body = connection.pdu()
    connection.send((wire.accept_pdu(bytes(body)),))
    buffer = bytearray(_BUFFER)
    view = memoryview(buffer)
    request = b""
    at = end = 0
    while count := sock.recv_into(view[end:]):
        end += count
        if at < end and buffer[at] != wire.P_DATA:
            connection.send((wire.release_answer(),))
            return
        while at + _HEADER <= end:
            _, length, _, context, control = wire.DATA_HEADER.unpack_from(buffer, at)
            following = at + 6 + length
            if control & 1:
                if following > end:
                    break
                request = bytes(view[at + _HEADER : following])
            elif control & 2:
                if following > end:
                    break
                connection.send((wire.store_response(request, context),))
            at = following
        if at >= end:
            at, end = at - end, 0
            while at:  # the rest of a fragment that nobody looks at
                at -= sock.recv_into(view[: min(at, _BUFFER)]) or sys.exit("closed in a fragment")
        else:
            view[: end - at] = view[at:end]
            at, end = 0, end - at


if __name__ == "__main__":
    main(int(sys.argv[1]))
