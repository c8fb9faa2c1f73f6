"""A web endpoint on the loopback address, for what the platform posts."""

import http.server
import threading


class Endpoint:
    """Writes down what is posted to it as (headers, body); `answers` are its next statuses, then 200. `address` is host
    and port, `url` an address below it."""

    def __init__(self):
        self.posts = []
        self.answers = []
        posts, answers = self.posts, self.answers

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                posts.append((dict(self.headers), body))
                self.send_response(answers.pop(0) if answers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.address}/hook"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
