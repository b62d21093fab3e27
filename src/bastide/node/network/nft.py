"""nftables in this process, through libnftables.

A change costs a fraction of a millisecond where starting the `nft` program costs five. The
library is part of Debian's `nftables` package.
"""

from __future__ import annotations

import ctypes
import json
import threading
from typing import Any

from bastide.node.errors import NotReady

LIBRARY = "libnftables.so.1"
_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON


class Nft:
    """One libnftables context, for the network namespace of the thread that makes it.

    Safe to use from several threads; calls take turns.

    Raises:
        NotReady: when the library is missing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            message = f"{LIBRARY} cannot be loaded ({error}); install the nftables package"
            raise NotReady(message) from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.nft_run_cmd_from_buffer.restype = ctypes.c_int
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        self._library = library
        context = library.nft_ctx_new(0)
        if not context:
            raise NotReady("libnftables gave no context; is this root?")
        self._context: int | None = context
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, _JSON)

    def run(self, commands: str) -> None:
        """Run nft commands as one transaction: all of them hold or none.

        Raises:
            NotReady: nft refused; its words are in the message.
        """
        self._run(commands)

    def elements(self, kind: str, table: str, name: str) -> list[Any]:
        """The elements of a `set` or `map` of `table`; empty when there is none."""
        try:
            answer = json.loads(self._run(f"list {kind} inet {table} {name}"))
        except NotReady:
            return []
        for item in answer["nftables"]:
            if kind in item:
                return list(item[kind].get("elem", []))
        return []

    def close(self) -> None:
        """Free the context; what it set stays."""
        with self._lock:
            if self._context is not None:
                self._library.nft_ctx_free(self._context)
                self._context = None

    def _run(self, commands: str) -> str:
        with self._lock:
            if self._context is None:
                raise NotReady("the firewall's context is closed")
            status = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context) or b""
            error = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            text = error.decode(errors="replace").strip()
            raise NotReady(f"nftables refused a change: {text[:2000]}")
        return bytes(output).decode()
