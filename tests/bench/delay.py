"""Pass TCP connections on with a delay, as a long line would: every byte arrives so much later."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress

_PIECE = 1 << 18
_IN_FLIGHT = 128  # pieces on the line in one direction: more than any window


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Move bytes in one direction until the sender closes."""
    line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_IN_FLIGHT)
    clock = asyncio.get_running_loop().time

    async def arrive() -> None:
        while True:
            when, piece = await line.get()
            await asyncio.sleep(when - clock())
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()

    arriving = asyncio.create_task(arrive())
    with suppress(ConnectionError):
        while piece := await reader.read(_PIECE):
            await line.put((clock() + seconds, piece))
    await line.put((clock() + seconds, b""))
    with suppress(ConnectionError):
        await arriving


def _line(port: int, seconds: float) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * seconds)  # the TCP handshake
        onward = await asyncio.open_connection("127.0.0.1", port, limit=4 * _PIECE)
        await asyncio.gather(_pass_on(reader, onward[1], seconds), _pass_on(onward[0], writer, seconds))

    return connected


async def main(listen: int, port: int, seconds: float) -> None:
    server = await asyncio.start_server(_line(port, seconds), "127.0.0.1", listen, limit=4 * _PIECE)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
