"""`python -m <this package>`: the same runtime against a Runtime API at AWS_LAMBDA_RUNTIME_API, as on AWS itself.

Use it there with AWS_LAMBDA_EXEC_WRAPPER for response streaming from Python.
"""

import os
import socket
import sys

from .client import RuntimeClient
from .loop import run


def main() -> int:
    host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
    connection = socket.create_connection((host, int(port or 80)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", os.getcwd()))
    runtime = os.environ.get("AWS_EXECUTION_ENV", "").removeprefix("AWS_Lambda_")
    return run(RuntimeClient(connection), os.environ["_HANDLER"], runtime)


if __name__ == "__main__":
    sys.exit(main())
