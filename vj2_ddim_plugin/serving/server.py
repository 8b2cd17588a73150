"""`vj2-ddim serve`: Ray Serve keeps replicas of a bundle alive, each of which answers by itself.

Ray's own proxy, one more process that takes every request apart, is left out: all replicas of a
machine listen on one port (`SO_REUSEPORT`), and the kernel gives each connection to one of them.
When one dies, its connections end, those who were connected come back to another, and Ray Serve
starts it anew.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx import SessionSettings
from vj2_ddim_plugin.process import available_cores, kept_handler
from vj2_ddim_plugin.serving import ServeSettings, join_cluster
from vj2_ddim_plugin.serving.app import Batcher, InferenceApp
from vj2_ddim_plugin.serving.sampling import answer_all
from vj2_ddim_plugin.serving.service import ServedModel

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads it once, when it is imported

with warnings.catch_warnings():  # of what Ray imports, about what that imports
    warnings.simplefilter("ignore")
    import ray
    import uvicorn
    from ray import serve

__all__ = ["Replica", "serve_bundle", "serving"]

APPLICATION = "vj2-ddim"
SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]
SIZES = [1, 2, 4, 8, 16, 32, 64, 128]
DRAIN_S, HEALTH_S, START_TIMES = 5.0, 2.0, 3

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Replica:
    """One process that holds the bundle and listens on the shared port."""

    def __init__(
        self, bundle: str, name: str, settings: ServeSettings, session: SessionSettings, token: str
    ) -> None:
        model = BundleModel(bundle, session)
        named, tags = {"model": name}, ("model",)
        requests = serve.metrics.Counter("vj2_ddim_requests", tag_keys=("model", "status"))
        seconds = serve.metrics.Histogram(
            "vj2_ddim_request_seconds", boundaries=SECONDS, tag_keys=tags
        )
        sizes = serve.metrics.Histogram("vj2_ddim_batch_size", boundaries=SIZES, tag_keys=tags)

        def told(status: int, taken: float) -> None:
            requests.inc(1, {**named, "status": str(status)})
            seconds.observe(taken, named)

        batcher = Batcher(
            lambda asked: answer_all(model, asked),
            settings,
            lambda size: sizes.observe(size, named),
        )
        app = InferenceApp(ServedModel(model, name, settings, token), batcher, told)
        config = uvicorn.Config(
            app, lifespan="off", access_log=False, log_config=None, timeout_keep_alive=75
        )
        self._server, sockets = uvicorn.Server(config), [listening_socket(settings)]
        self._thread = threading.Thread(target=self._server.run, args=(sockets,), daemon=True)
        self._thread.start()
        while not self._server.started:
            self.check_health()
            time.sleep(0.01)

    def process_id(self) -> int:
        """Of this replica."""
        return os.getpid()

    def check_health(self) -> None:
        """Raises where it no longer listens: Ray Serve then replaces it."""
        if not self._thread.is_alive():
            raise RuntimeError("the replica has stopped listening")

    def __del__(self) -> None:
        """Answer what was begun, and stop listening."""
        self._server.should_exit = True
        self._thread.join(DRAIN_S)


def listening_socket(settings: ServeSettings) -> socket.socket:
    """A socket on the port, which other processes of this user may listen on, too."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("replicas share one port by SO_REUSEPORT, which Linux has")
    where = f"{settings.host}:{settings.port}"
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, number)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(address)
    except OSError as error:
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}") from error
    return opened


def require_free(settings: ServeSettings) -> None:
    """Raise `ConfigError` where another program listens, which would get half of the requests."""
    listening_socket(settings).close()
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "localhost") else settings.host
    with suppress(OSError), socket.create_connection((host, settings.port), 1.0):
        raise ConfigError(f"something listens on {host}:{settings.port} already; name another port")


@contextmanager
def serving(
    bundle: Path | str,
    settings: ServeSettings | None = None,
    session: SessionSettings | None = None,
) -> Iterator[Callable[[], int]]:
    """Serve a bundle while the block runs; nothing is left behind.

    Yields what names the process of some replica, which may be killed.

    Raises:
        ConfigError: The settings do not fit this machine, or the replicas do not start.
        BundleError: The bundle is incomplete, changed or inconsistent.
        ProviderError: The provider asked for is not the one that runs.
    """
    settings, session = settings or ServeSettings(), session or SessionSettings()
    folder = Path(os.path.realpath(bundle))
    name = settings.name or folder.name
    if not NAME.fullmatch(name):
        raise ConfigError(f"name must be of letters, digits, '.', '_' and '-'; found {name!r}")
    token = settings.read_token()
    if session.num_threads is None:
        share = max(1, available_cores() // settings.num_replicas)
        session = replace(session, num_threads=share)
    BundleModel(folder, session).close()  # what is wrong with it is said here
    require_free(settings)
    with kept_handler(signal.SIGTERM), _ray(settings):  # Ray puts one of its own there
        deployment = serve.deployment(
            Replica,
            num_replicas=settings.num_replicas,
            ray_actor_options={"num_cpus": 0},
            health_check_period_s=HEALTH_S,
            graceful_shutdown_timeout_s=DRAIN_S,
            graceful_shutdown_wait_loop_s=0.1,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        bound = deployment.bind(str(folder), name, settings, session, token)
        try:
            handle = serve.run(bound, name=APPLICATION, route_prefix=None)
        except RuntimeError as error:
            raise ConfigError(f"the replicas do not start: {error}") from error
        try:
            yield lambda: int(handle.process_id.remote().result())
        finally:
            serve.delete(APPLICATION)


@contextmanager
def _ray(settings: ServeSettings) -> Iterator[None]:
    """A Ray of our own in a folder of its own, or one that runs already."""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    folder = tempfile.mkdtemp(prefix="vj2-")  # a short name: sockets are in it
    own = {
        "num_cpus": 0,
        "include_dashboard": False,
        "object_store_memory": 80 * 2**20,
        "_temp_dir": folder,
        "_metrics_export_port": settings.metrics_port,
    }
    try:
        if settings.cluster is not None:
            join_cluster(ray.init, settings.cluster, **quiet)
        else:  # only who was started from here may talk to it; without this, a file says how
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            _start({**quiet, **own})
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(
            proxy_location="Disabled",
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        yield
    finally:
        ray.shutdown()
        for _ in range(50):  # what Ray started writes there until it has ended
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.1)


def _start(how: dict[str, Any]) -> None:
    """Start Ray; on a machine that is very busy it may give up too soon, so more than once."""
    if ray.is_initialized():
        raise ConfigError("this process uses Ray already; serve from another, or name its cluster")
    for left in reversed(range(START_TIMES)):
        try:
            ray.init("local", **how)
        except Exception as error:  # Ray raises nothing more exact
            ray.shutdown()
            if not left:
                raise ConfigError(f"Ray does not start: {error}") from error
        else:
            return


def serve_bundle(
    bundle: Path,
    settings: ServeSettings,
    session: SessionSettings,
    ready: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM, see `serving`; `ready` is told the address."""
    stop, numbers = threading.Event(), (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        with serving(bundle, settings, session):
            for number in numbers:  # anew: Ray has put its own there
                signal.signal(number, lambda *_: stop.set())
            name = settings.name or bundle.resolve().name
            ready(f"http://{settings.host}:{settings.port}/{name}")
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
