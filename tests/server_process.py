"""A web server or an S3 server as a process, which can end itself in the middle of an answer.

`python -m tests.server_process web 8000 FOLDER` or `... s3 8000`. The options are in ENVIRONMENT.
"""

import base64
import functools
import http.server
import math
import os
import sys
import threading
from pathlib import Path

# After how many answers to GET the process ends; in the middle of the body of the last one.
DIES_AFTER = int(os.environ.get("DIES_AFTER", "0"))
LOGIN = os.environ.get("LOGIN", "")  # user:password that a request must have
TOKEN = os.environ.get("TOKEN", "")  # token that a query must have
REFUSED = os.environ.get("REFUSED", "")  # status that answers every request
CLAIMS = os.environ.get("CLAIMS", "")  # size that every file claims to have
REQUESTS = os.environ["REQUESTS"]  # file to which each request adds a line


class Countdown:
    n_answers = 0

    @classmethod
    def is_over(cls) -> bool:
        cls.n_answers += 1
        return cls.n_answers == DIES_AFTER


def note(method: str, path: str) -> None:
    with Path(REQUESTS).open("a") as file:
        file.write(f"{method} {path}\n")


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send_head(self):
        note(self.command, self.path)
        login = "Basic " + base64.b64encode(LOGIN.encode()).decode()
        if REFUSED:
            return self.send_error(int(REFUSED))
        if LOGIN and self.headers.get("Authorization") != login:
            return self.send_error(401)
        if TOKEN and f"token={TOKEN}" not in self.path:
            return self.send_error(403)
        return super().send_head()

    def send_header(self, keyword, value):
        if CLAIMS and keyword == "Content-Length" and self.command == "HEAD":
            value = CLAIMS
        super().send_header(keyword, value)

    def copyfile(self, source, outputfile):
        content = source.read()
        if self.command == "GET" and Countdown.is_over():
            outputfile.write(content[: len(content) // 2])
            outputfile.flush()
            os._exit(1)
        outputfile.write(content)

    def log_message(self, *words):
        pass


def serve_web(port: int, folder: str) -> None:
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print("ready", flush=True)
        server.serve_forever()


def serve_s3(port: int) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)
    n_left = math.inf  # uploads until the first that fails
    lock = threading.Lock()

    def application(environ, start_response):
        nonlocal n_left
        method = environ["REQUEST_METHOD"]
        if environ["PATH_INFO"].startswith("/count-puts/"):
            n_left = float(environ["PATH_INFO"].rpartition("/")[2])
            start_response("200 OK", [("Content-Length", "0")])
            return [b""]
        if method == "PUT":
            with lock:
                n_left -= 1
            if n_left < 0:
                start_response("500 FAILED", [("Content-Length", "0")])
                return [b""]
        note(method, environ["PATH_INFO"])
        if REFUSED:
            start_response(f"{REFUSED} REFUSED", [("Content-Length", "0")])
            return [b""]
        if method == "GET" and Countdown.is_over():
            os._exit(1)
        return moto(environ, start_response)

    server = make_server("127.0.0.1", port, application, threaded=True)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    kind, port, *folders = sys.argv[1:]
    if kind == "web":
        serve_web(int(port), *folders)
    else:
        serve_s3(int(port))
