"""Layers with external extensions, as they are published: files below `extensions/`."""

from pathlib import Path

PYTHON = '''#!/usr/bin/env python3
import http.server, json, os, socket, sys, threading, time, urllib.error, urllib.request

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
NAME = os.path.basename(sys.argv[0])

def call(path, method="GET", body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{API}{path}", body, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.headers, json.load(answer)

def say(*words):
    print(NAME, *words, flush=True)

def register(*events):
    headers, document = call("/2020-01-01/extension/register", "POST", json.dumps({"events": events}).encode(),
                             Lambda_Extension_Name=NAME)
    return headers["Lambda-Extension-Identifier"]

def next_event():
    return call("/2020-01-01/extension/event/next", Lambda_Extension_Identifier=me)[1]

def report(kind, error_type):
    call(f"/2020-01-01/extension/{kind}/error", "POST", b"{}", Lambda_Extension_Identifier=me,
         Lambda_Extension_Function_Error_Type=error_type)

def subscribe(destination, types=("platform", "function", "extension"), path="/2022-07-01/telemetry", **more):
    body = {"schemaVersion": "2022-12-13", "types": types, "buffering": {"timeoutMs": 25}, "destination": destination}
    return call(path, "PUT", json.dumps({**body, **more}).encode(), Lambda_Extension_Identifier=me)[1]

'''

WATCH = '''
me = register("INVOKE", "SHUTDOWN")
say("registered")
while True:
    event = next_event()
    if event["eventType"] == "SHUTDOWN":
        left = event["deadlineMs"] / 1000 - time.time()
        say("SHUTDOWN", event["shutdownReason"], "in time" if 0 < left <= 2 else left)
        sys.exit(0)
    say("INVOKE", event["requestId"], event["invokedFunctionArn"], event["tracing"]["value"])
'''

SHELL = """#!/bin/sh
name=$(basename "$0")
head=$(curl -s -D - -o /dev/null -X POST -H "Lambda-Extension-Name: $name" -d '{"events": ["INVOKE"]}' \
    "http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/register")
me=$(echo "$head" | tr -d '\\r' | sed -n 's/^[Ll]ambda-[Ee]xtension-[Ii]dentifier: //p')
while event=$(curl -s -H "Lambda-Extension-Identifier: $me" \
    "http://$AWS_LAMBDA_RUNTIME_API/2020-01-01/extension/event/next"); do
    echo "$name saw $event"
    echo "$event" >> /tmp/seen
done
"""


class LayerMaker:
    """`layer(watch=WATCH, other=SHELL)` writes a layer and gives its directory; what does not start with `#!` is the
    end of a Python program that begins with `PYTHON`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def __call__(self, mode: int = 0o755, **programs: str) -> Path:
        self._count += 1
        layer = self._directory / f"layer-{self._count}"
        (layer / "extensions").mkdir(parents=True)
        for name, source in programs.items():
            path = layer / "extensions" / name
            path.write_text(source if source.startswith("#!") else PYTHON + source)
            path.chmod(mode)
        return layer
