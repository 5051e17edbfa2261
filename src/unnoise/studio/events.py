"""Server-Sent Events, and waking those who wait for them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import StreamingResponse

RETRY = 500  # milliseconds after which a browser connects again
QUIET = 10.0  # seconds without an event after which a comment is sent, so that nothing between closes the connection


class Signal:
    """Wakes all coroutines that wait for a change, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._waiting = loop, set[asyncio.Event]()

    def __len__(self) -> int:
        """How many listen."""
        return len(self._waiting)

    def notify(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """An event that is set at each change, until it is cleared."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """For the event, which is cleared, but no longer than so many seconds; whether it came."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    event.clear()
    return True


def encode(event: str, data: Any) -> bytes:
    """One event, its data as JSON."""
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    """A response of events, each as `encode` gives it."""

    async def content() -> AsyncIterator[bytes]:
        yield f"retry: {RETRY}\n\n".encode()
        async for event in events:
            yield event

    return StreamingResponse(content(), media_type="text/event-stream", headers={"cache-control": "no-store"})


COMMENT = b":\n\n"  # no event
