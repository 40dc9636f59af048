"""The thread that takes connections."""

import time
from contextlib import contextmanager

from gateway.config import Listen
from gateway.dimse.acceptor import Acceptor
from gateway.dimse.ports import open_ports


def test_once_it_has_started_it_is_known_to_listen_and_once_stopped_no_longer():
    known = []

    @contextmanager
    def listening():
        time.sleep(0.2)  # a thread of its own would be overtaken by who started it
        known.append(True)
        yield
        known.clear()

    with open_ports(Listen(host="127.0.0.1", port=0)) as ports:
        acceptor = Acceptor(ports, lambda *_: None, listening, most=1, most_strangers=1)
        acceptor.start()
        try:
            assert known == [True]
        finally:
            acceptor.stop()
            acceptor.close()
        assert known == []
