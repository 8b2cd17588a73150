"""The ASGI application of a served bundle, and the queue in which requests meet."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from vj2_ddim_plugin.errors import ServingError
from vj2_ddim_plugin.serving import ServeSettings
from vj2_ddim_plugin.serving.sampling import Answer, SampleRequest
from vj2_ddim_plugin.serving.service import Response, ServedModel, refusal

__all__ = ["Batcher", "InferenceApp"]

logger = logging.getLogger(__name__)

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Infer: TypeAlias = Callable[[SampleRequest], Awaitable[Answer]]
FAULT = "the server failed; its log says why"


class InferenceApp:
    """An ASGI application: reads requests within the limits, and has `infer` answer them.

    `told` is called with the status and the seconds of every request.
    """

    def __init__(
        self, served: ServedModel, infer: Infer, told: Callable[[int, float], None] | None = None
    ) -> None:
        self._served, self._infer, self._told = served, infer, told

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        begun = time.perf_counter()
        try:
            response = await self._response(scope, receive)
        except ConnectionError:
            return  # nobody is there to be answered
        except Exception:
            logger.exception("a request failed")
            response = refusal(ServingError(FAULT, 500))
        await _send(send, response)
        if self._told is not None:
            self._told(response.status, time.perf_counter() - begun)

    async def _response(self, scope: Event, receive: Receive) -> Response:
        names = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
        try:
            body = await self._body(names.get("content-length", "0"), receive)
        except ServingError as error:
            return refusal(error)
        opened = self._served.open(scope["method"], scope["path"], names, body)
        if isinstance(opened, Response):
            return opened
        return self._served.close(opened, await self._infer(opened))

    async def _body(self, length: str, receive: Receive) -> bytes:
        """The body; one that is, or says that it is, too long is not read to its end."""
        limit, parts, size = self._served.settings.max_request_bytes, [], 0
        while True:
            if size > limit or (length.isdecimal() and int(length[:12]) > limit):
                raise ServingError(f"the request is longer than {limit} bytes", 413)
            event = await receive()
            if event["type"] != "http.request":
                raise ConnectionError
            parts.append(event.get("body", b""))
            size += len(parts[-1])
            if not event.get("more_body"):
                break
        if size > limit:
            raise ServingError(f"the request is longer than {limit} bytes", 413)
        return b"".join(parts)


class Batcher:
    """Gathers requests while others run, and has `answer` answer them together, in a thread.

    A lone request never waits. Where the last batch held several, the next one waits up to
    `batch_wait` seconds until as many are there again. Used in one event loop.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[SampleRequest]], list[Answer]],
        settings: ServeSettings,
        told: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer, self._settings, self._told = answer, settings, told
        self._waiting: list[tuple[SampleRequest, asyncio.Future[Answer]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._arrived, self._last = asyncio.Event(), 0

    async def __call__(self, request: SampleRequest) -> Answer:
        """The answer to one request; 503 where too many wait, 504 where it waited too long."""
        limit = self._settings.max_waiting
        if len(self._waiting) >= limit:
            return ServingError(f"{limit} requests are waiting; try again", 503)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if len(self._waiting) >= self._last:
            self._arrived.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            if len(self._waiting) < self._last and self._settings.batch_wait:
                self._arrived.clear()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._arrived.wait(), self._settings.batch_wait)
            most, now = self._settings.max_batch_size, time.monotonic()
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
            self._last = len(taken)
            batch = []
            for request, future in taken:
                if request.expires < now:
                    _tell(future, ServingError("it waited for longer than its timeout", 504))
                else:
                    batch.append((request, future))
            await self._run(batch)
        self._worker = None

    async def _run(self, batch: list[tuple[SampleRequest, asyncio.Future[Answer]]]) -> None:
        requests = [request for request, _ in batch]
        self._told(len(batch))
        try:
            answers = await asyncio.to_thread(self._answer, requests) if batch else []
        except Exception:
            logger.exception("a batch of %d requests failed", len(batch))
            answers = [ServingError(FAULT, 500)] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            _tell(future, answer)


def _tell(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():  # who asked may have left
        future.set_result(answer)


async def _send(send: Send, response: Response) -> None:
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    pairs = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": pairs})
    await send({"type": "http.response.body", "body": response.body})
