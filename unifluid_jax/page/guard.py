"""Checks whole requests before Gradio reads them."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MOST_BYTES = 33 * 2**20
"""Bytes that a request may have: an upload, and what comes with it."""

_REMOTE = ('/gradio_api/file=http', '/gradio_api/proxy=')
"""Routes on which Gradio fetches what other servers have."""


class TooLargeError(Exception):
  """A request has more than MOST_BYTES."""


class Guard:
  """An ASGI middleware that answers wrong requests with a message.

  It stops reading a request that is too large, fetches nothing from other
  servers, and answers requests that Gradio itself fails on.
  """

  def __init__(self, app: App, errors: tuple[type[Exception], ...]):
    """Wraps an app.

    Args:
      app: The app.
      errors: What the app raises on wrong requests.
    """
    self._app = app
    self._errors = errors

  async def __call__(
    self, scope: Message, receive: Receive, send: Send
  ) -> None:
    """Serves a request."""
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    started = False
    size = 0

    async def count() -> Message:
      nonlocal size
      message = await receive()
      size += len(message.get('body', b''))
      if size > MOST_BYTES:
        raise TooLargeError
      return message

    async def watch(message: Message) -> None:
      nonlocal started
      started = True
      await send(message)

    if scope['path'].startswith(_REMOTE):
      await _answer(send, 403, 'only files of this page are served')
    elif _announced(scope) > MOST_BYTES:
      await _refuse_size(send)
    else:
      try:
        await self._app(scope, count, watch)
      except TooLargeError:
        if started:
          raise
        await _refuse_size(send)
      except self._errors as error:
        if started:
          raise
        await _answer(send, 400, f'the request is wrong: {error}')


def _announced(scope: Message) -> int:
  """The size that the request's header announces; 0 for none."""
  text = dict(scope['headers']).get(b'content-length', b'')
  return int(text) if text.isdigit() else 0


async def _refuse_size(send: Send) -> None:
  message = f'the request has more than {MOST_BYTES:,} bytes; send less'
  await _answer(send, 413, message)


async def _answer(send: Send, status: int, message: str) -> None:
  """Sends a message as JSON, in the form of FastAPI's own errors."""
  headers = [(b'content-type', b'application/json'), (b'connection', b'close')]
  start = {'type': 'http.response.start', 'status': status, 'headers': headers}
  await send(start)
  body = json.dumps({'detail': message}).encode()
  await send({'type': 'http.response.body', 'body': body})
