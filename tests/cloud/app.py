"""An app inside a workspace: HTTP, server-sent events and a WebSocket on a loopback port.

Run by the Python of the agent's bundle, so that it runs in every image. The port is an argument;
`listening` is printed once it listens.
"""

import base64
import hashlib
import json
import socketserver
import sys

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class App(socketserver.StreamRequestHandler):
    """One request for each connection."""

    def handle(self) -> None:
        """Answer by path."""
        method, path, _ = self.rfile.readline().decode().split()
        headers = {}
        while line := self.rfile.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("upgrade", "").lower() == "websocket":
            self.echo(headers)
        elif path.startswith("/events"):
            self.head("200 OK", "text/event-stream")
            for number in range(3):
                self.wfile.write(b"data: %d\n\n" % number)
                self.wfile.flush()
        else:
            body = self.rfile.read(int(headers.get("content-length", "0")))
            told = {"method": method, "path": path, "headers": headers, "body": body.decode()}
            status = path.partition("/status/")[2] or "200"
            self.head(f"{status} Own Words", "application/json")
            self.wfile.write(json.dumps(told).encode())

    def head(self, status: str, kind: str) -> None:
        """Begin an answer that ends with the connection."""
        text = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        self.wfile.write(text.encode())

    def echo(self, headers: dict[str, str]) -> None:
        """Send every short frame back, with `echo ` before its payload."""
        key = (headers["sec-websocket-key"] + GUID).encode()
        accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
        self.wfile.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        while len(start := self.rfile.read(2)) == 2 and start[0] & 15 != 8:
            mask = self.rfile.read(4)
            payload = self.rfile.read(start[1] & 127)
            plain = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
            answer = b"echo " + plain
            self.wfile.write(bytes((start[0], len(answer))) + answer)


class Server(socketserver.ThreadingTCPServer):
    """Any number of connections at once."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), App) as server:
        print("listening", flush=True)  # noqa: T201
        server.serve_forever()
