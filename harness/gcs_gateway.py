"""Completes fake-gcs-server, which does not accept the uploads of Google's XML API: ``PUT /bucket/key``.

obstore uses the XML API for everything. This process sends each such upload on as one of the JSON API, with the same
content, attributes and precondition, and answers with the headers of the XML API. All else passes unchanged.

    python gcs_gateway.py PORT SERVER_PORT
"""

import json
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

_BOUNDARY = "gateway-boundary-of-one-file"
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: "_Gateway"

    def do_GET(self) -> None:
        self._pass_on()

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        bucket, _, key = self.path.partition("?")[0].removeprefix("/").partition("/")
        content_type = self.headers.get("Content-Type", "application/octet-stream")
        metadata = {
            "name": unquote(key),
            "contentType": content_type,
            "contentDisposition": self.headers.get("Content-Disposition", ""),
        }
        target = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart&name={quote(unquote(key), safe='')}"
        if (generation := self.headers.get("x-goog-if-generation-match")) is not None:
            target += f"&ifGenerationMatch={generation}"
        start = (
            f"--{_BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{json.dumps(metadata)}\r\n"
            f"--{_BOUNDARY}\r\nContent-Type: {content_type}\r\n\r\n"
        )
        body = start.encode() + self._body() + f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {"Host": self.headers["Host"], "Content-Type": f"multipart/related; boundary={_BOUNDARY}"}
        answer, content = self._ask("POST", target, body, headers)
        if answer.status == 200:
            stored = json.loads(content)
            self._answer(200, {"ETag": stored["etag"], "x-goog-generation": stored["generation"]}, b"")
        else:
            self._answer(answer.status, {}, content)

    def _pass_on(self) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_CONNECTION}
        answer, content = self._ask(self.command, self.path, self._body(), headers)
        self._answer(answer.status, _kept(answer), content)

    def _ask(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> tuple[HTTPResponse, bytes]:
        # A connection for each request: the server closes some without saying so.
        with closing(HTTPConnection("127.0.0.1", self.server.backend_port)) as backend:
            backend.request(method, target, body, headers)
            answer = backend.getresponse()
            return answer, answer.read()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _kept(answer: HTTPResponse) -> dict[str, str]:
    return {name: value for name, value in answer.getheaders() if name.lower() not in _OF_ONE_CONNECTION}


class _Gateway(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, backend_port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.backend_port = backend_port


if __name__ == "__main__":
    _Gateway(int(sys.argv[1]), int(sys.argv[2])).serve_forever()
