"""A web endpoint on the loopback address, for what the platform posts."""

import http.server
import threading


class Endpoint:
    """Writes down what is posted to it as (headers, body); `answers` are its next statuses, each alone or with a body,
    then 200. `address` is host and port, `url` an address below it."""

    def __init__(self, *answers):
        self.posts = []
        self.answers = list(answers)
        posts, answers = self.posts, self.answers

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                posts.append((dict(self.headers), body))
                answer = answers.pop(0) if answers else 200
                status, told = answer if isinstance(answer, tuple) else (answer, b"")
                self.send_response(status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

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
