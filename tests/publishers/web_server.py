"""A web server that writes down every POST: `web_server.py PORT FOLDER`; FOLDER/answer says what it answers."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[2])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        content = self.rfile.read(length)
        if len(content) < length:  # its sender was killed on the way: as any web server, this one drops it
            self.close_connection = True
            return
        body = content.decode()
        answer = FOLDER / "answer"
        status, _, key = answer.read_text().partition(" ") if answer.exists() else ("200", "", "")
        if key and key != self.headers["Idempotency-Key"]:
            status = "200"
        headers = {name.lower(): value for name, value in self.headers.items()}
        with (FOLDER / "requests.jsonl").open("a") as log:
            log.write(json.dumps({"status": int(status), "headers": headers, "body": body, "path": self.path}) + "\n")
        self.send_response(int(status))
        if int(status) == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
