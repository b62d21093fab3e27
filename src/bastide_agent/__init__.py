"""The agent that runs inside every workspace.

It is the child of tini in each machine, serves the control port (9989) and, while runtime access
is enabled, the runtime port (9990). Every workspace pays for its memory and its start, so it uses
the standard library, h11 and wsproto alone, and imports late what a request may never need.

**Adding a feature.** One package per noun (`files/`, `exec/`, `search/`, `terminals/`, ...). Its
`routes.py` has one function `register(router, runtime)`, which is named in
`bastide_agent.runtime.FEATURES`; import whatever is heavy inside the handlers. Then:

- `router.add("GET", "/things/:id", handler)`; `router.add_prefix("/proxy", handler)` takes every
  method and path below it. A literal path wins over `/:id`.
- A handler is `async def handler(request: Request) -> Response | None`. `request.query` and
  `await request.fields()` (the JSON body; empty is `{}`) are `Fields`: typed getters that raise a
  400 naming the field. `request.params` are the `/:id` parts. Large bodies:
  `async for chunk in request.body` (back-pressure is built in) or `await request.body.read(limit)`.
- Answer with `ok({...})` or `Response`; raise `ApiError(status, code, message)` for anything else.
- Streams: `stream = await request.start(200, content_type)`, `await stream.write(data)` (waits
  while the client is slow); `bastide_agent.http.streams` has `EventStream` (SSE) and `Lines`
  (NDJSON). Return None when done. A client that goes away cancels the handler.
- WebSockets: `socket = await WebSocket.accept(request)` (`bastide_agent.http.websocket`). Raw
  upgrades (a proxy): `channel = request.take_over()`; the handler owns the bytes until it returns.
- Blocking work: `await in_thread(function, ...)` (`bastide_agent.threads`). Processes:
  `bastide_agent.process`.
- State that must end when runtime access is disabled or the agent stops: `runtime.on_close(async
  function)`.
"""
