"""A served bundle without Ray: the service behind the standard library's own HTTP server."""

import contextlib
import functools
import http.client
import http.server
import json
import threading
from pathlib import Path

import numpy as np

import vj2_ddim_benchmark
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.serving import ServeSettings
from vj2_ddim_plugin.serving.sampling import answer_all
from vj2_ddim_plugin.serving.service import Response, ServedModel

SHIPPED = Path(vj2_ddim_benchmark.__file__).parent / "assets" / "shipped" / "bundle"
INFER = "/v2/models/bundle/infer"


@functools.cache
def shipped():
    """The shipped bundle, with its ranker, on one thread."""
    return BundleModel(SHIPPED, "cpu", num_threads=1)


def make_context(batch=1, seed=0, model=None):
    rng, inputs = np.random.default_rng(seed), (model or shipped()).condition.inputs
    return {name: rng.standard_normal((batch, *of), np.float32) for name, of in inputs.items()}


def respond(served, method, path, body=b"", **headers):
    """The response of a service to one request, sampled at once."""
    opened = served.open(method, path, {k.replace("_", "-"): v for k, v in headers.items()}, body)
    if isinstance(opened, Response):
        return opened
    return served.close(opened, answer_all(served.model, [opened])[0])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        server = self.server
        server.asked.append(self.path)
        if server.failures and (failure := server.failures.pop(0)) is not None:
            if failure == "hang up":
                self.close_connection = True
                return
            if callable(failure):
                failure()
            else:
                status, length = failure if isinstance(failure, tuple) else (failure, 0)
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.send_header("Inference-Header-Content-Length", "160")
                self.end_headers()
                self.wfile.write(b"{"[:length])  # and no more
                self.close_connection = True
                return
        headers = {name.lower().replace("-", "_"): text for name, text in self.headers.items()}
        response = respond(server.served, self.command, self.path, body, **headers)
        self.send_response(response.status)
        length = {"Content-Length": str(len(response.body))}
        for name, text in {**response.headers, **length}.items():
            self.send_header(name, text)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(response.body)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def http_server(model=None, token="", **settings):
    """A server in a thread; `failures` are what it does to the next requests instead."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.served = ServedModel(model or shipped(), "bundle", ServeSettings(**settings), token)
    server.failures, server.asked = [], []
    server.daemon_threads = True
    server.address = f"http://127.0.0.1:{server.server_port}/bundle"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def as_json(arrays, **fields):
    """A request as a person writes it: everything in JSON."""
    kinds = {"float32": "FP32", "uint64": "UINT64", "int64": "INT64"}
    inputs = [
        {"name": n, "datatype": kinds[str(a.dtype)], "shape": list(a.shape), "data": a.tolist()}
        for n, a in arrays.items()
    ]
    return json.dumps({"inputs": inputs, **fields}).encode()


def outputs_of(body):
    """The arrays of a JSON response by name."""
    return {
        each["name"]: np.array(each["data"], np.float32).reshape(each["shape"])
        for each in json.loads(body)["outputs"]
    }


def post(port, path, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
