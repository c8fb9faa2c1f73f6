"""The Telemetry API: real extensions listen, and print what they get into their function's log."""

import json
import os
import re

from tests.support.server import free_port

TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
ECHO = """
def handler(event, context):
    print("handled", event)
    return event
"""


def at_rest(driver):
    """Until the invocation and its extensions are done."""
    driver.until(lambda: driver.pool.usage().running == 0 and driver.pool.usage().starting == 0)


def end(driver, spec):
    at_rest(driver)
    driver.pool.retire(spec.arn)
    driver.until(lambda: not driver.pool.environments())


LISTENER = """
class Sink(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        for event in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
            if event["type"] != "extension":
                say("got", self.path, json.dumps(event))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args): pass
"""


def received(driver, name):
    """The events that extension `name` has printed, by type."""
    found = {}
    for message in driver.messages():
        if message.startswith(f"{name} got "):
            event = json.loads(message.split(" ", 3)[3])
            found.setdefault(event["type"], []).append(event)
    return found


def test_telemetry_over_http_to_the_name_of_the_sandbox(driver, make, layer):
    port = free_port()
    sink = LISTENER + f"""
server = http.server.HTTPServer(("{'sandbox.localdomain' if os.getuid() == 0 else '127.0.0.1'}", {port}), Sink)
threading.Thread(target=server.serve_forever, daemon=True).start()
me = register("INVOKE", "SHUTDOWN")
say(subscribe({{"protocol": "HTTP", "URI": "http://sandbox.localdomain:{port}/in"}}))
while next_event()["eventType"] != "SHUTDOWN":
    pass
time.sleep(0.1)
"""
    spec = make(ECHO, layers=(layer(sink=sink),))
    driver.invoke(spec, b"1", request_id="r-1", trace_id=TRACE)
    driver.until(lambda: "platform.report" in received(driver, "sink"))
    driver.invoke(spec, b"2", request_id="r-2")
    driver.until(lambda: len(received(driver, "sink").get("platform.report", [])) == 2)
    end(driver, spec)
    events = received(driver, "sink")
    assert set(events) == {
        "platform.initStart", "platform.initRuntimeDone", "platform.initReport", "platform.extension",
        "platform.telemetrySubscription", "platform.start", "platform.runtimeDone", "platform.report", "function",
    }  # fmt: skip
    assert "TELEMETRY\tName: sink\tState: Subscribed\tTypes: [Platform, Function, Extension]" in driver.messages()
    assert [event["record"] for event in events["function"]] == ["handled 1", "handled 2"]
    assert [event["record"]["requestId"] for event in events["platform.start"]] == ["r-1", "r-2"]
    assert events["platform.start"][0]["record"]["tracing"]["value"] == TRACE
    done = events["platform.runtimeDone"][0]["record"]
    assert done["status"] == "success" and done["metrics"]["producedBytes"] == 1
    assert [span["name"] for span in done["spans"]] == ["responseLatency", "responseDuration"]
    first, second = (event["record"]["metrics"] for event in events["platform.report"])
    assert first["initDurationMs"] > 0 and "initDurationMs" not in second
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"]) for event in events["function"])
    assert all(message.split()[2] == "/in" for message in driver.messages() if message.startswith("sink got"))


def test_the_end_of_the_runtime_is_told_while_extensions_still_work(driver, make, layer):
    port = free_port()
    waits = LISTENER.replace("say(", "done.set() if event['type'] == 'platform.runtimeDone' else None; say(") + f"""
done = threading.Event()
server = http.server.HTTPServer(("127.0.0.1", {port}), Sink)
threading.Thread(target=server.serve_forever, daemon=True).start()
me = register("INVOKE", "SHUTDOWN")
subscribe({{"protocol": "HTTP", "URI": "http://sandbox.localdomain:{port}"}})
while next_event()["eventType"] != "SHUTDOWN":
    say("runtime done" if done.wait(5) else "in vain")
"""
    spec = make(ECHO, layers=(layer(waits=waits),), timeout_s=8.0)
    driver.invoke(spec)
    at_rest(driver)
    assert "waits runtime done" in driver.messages()
    end(driver, spec)


def test_telemetry_over_tcp_and_lines_as_objects(driver, make, layer):
    port = free_port()
    sink = f"""
server = socket.create_server(("127.0.0.1", {port}))
def read():
    for line in server.accept()[0].makefile():
        say("got - -" if False else "got -", line.strip())
threading.Thread(target=read, daemon=True).start()
me = register("INVOKE")
subscribe({{"protocol": "TCP", "port": {port}}}, types=["function"])
while True:
    next_event()
"""
    spec = make(
        'def handler(event, context):\n    print(\'{"level": "INFO", "n": 1}\')\n    print("plain")',
        layers=(layer(sink=sink),),
        environment=(("AWS_LAMBDA_LOG_FORMAT", "JSON"),),
    )
    driver.invoke(spec)
    driver.until(lambda: len(received(driver, "sink").get("function", [])) == 2)
    assert [event["record"] for event in received(driver, "sink")["function"]] == [{"level": "INFO", "n": 1}, "plain"]


def test_failures_are_told_before_the_environment_ends(driver, make, layer):
    port = free_port()
    sink = LISTENER + f"""
server = http.server.HTTPServer(("127.0.0.1", {port}), Sink)
threading.Thread(target=server.serve_forever, daemon=True).start()
me = register("SHUTDOWN")
subscribe({{"protocol": "HTTP", "URI": "http://sandbox.localdomain:{port}"}}, types=["platform"],
          buffering={{"timeoutMs": 30000}})
next_event()
time.sleep(0.3)
"""
    spec = make("import os\ndef handler(event, context):\n    os._exit(3)", layers=(layer(sink=sink),))
    driver.invoke(spec)
    driver.until(lambda: "platform.report" in received(driver, "sink"))
    events = received(driver, "sink")
    for kind in ("platform.runtimeDone", "platform.report"):
        record = events[kind][0]["record"]
        assert (record["status"], record["errorType"]) == ("failure", "Runtime.ExitError")
