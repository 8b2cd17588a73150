"""A bundle served to many planners: what is asked, how it is batched, and the server.

Ray is imported by `vj2_ddim_plugin.serving.server` alone; the rest answers requests without it.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import require_regular_file
from vj2_ddim_plugin.settings import Settings, setting

__all__ = ["TOKEN", "ServeSettings", "join_cluster"]

TOKEN = "VJ2_DDIM_TOKEN"
SHORTEST_TOKEN = 16
PATIENCE_S = 5.0  # for a cluster's address to answer


@dataclass(frozen=True)
class ServeSettings(Settings):
    """How a bundle is served.

    Raises:
        ConfigError: A setting is out of range, or the token cannot be read or is too short.
    """

    host: str = setting("127.0.0.1", "The address to listen on; 0.0.0.0 is every network.")
    port: int = setting(8000, "The port to listen on.", low=1, high=65_535)
    name: str = setting("", "What the model is called; the bundle's folder unless told.")
    num_replicas: int = setting(1, "Processes that hold the bundle.", low=1, high=1024)
    max_batch_size: int = setting(8, "Requests that run together at most.", low=1, high=4096)
    batch_wait: float = setting(
        0.003,
        "Seconds that a batch may wait for more requests where the last one held several; a lone "
        "request never waits.",
        low=0,
        high=10,
    )
    max_waiting: int = setting(
        256, "Requests that may wait in a replica; more are refused with 503.", low=1
    )
    max_request_bytes: int = setting(64 * 2**20, "Bytes of a request.", low=1024, high=2**31)
    max_candidates: int = setting(1024, "Candidates of a request, B * K.", low=1, high=1_000_000)
    max_inference_steps: int = setting(100, "DDIM steps of a request.", low=1, high=100_000)
    token_file: Path | None = setting(
        None, f"A file with the token that requests must carry; also by {TOKEN}."
    )
    metrics_port: int | None = setting(
        None, "Serve Ray's metrics to Prometheus on this port.", low=1, high=65_535
    )
    cluster: str | None = setting(
        None, "Join this Ray cluster, its address or auto; without, one is started and ended here."
    )

    def read_token(self) -> str:
        """The token that requests must carry; empty where none is asked for."""
        token = os.environ.get(TOKEN, "")
        if self.token_file is not None:
            path = require_regular_file(self.token_file, ConfigError, "a file with a token")
            token = path.read_text(encoding="utf-8", errors="replace").strip()
        if (token or self.token_file) and (
            len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()
        ):
            raise ConfigError(
                f"the token of {self.token_file or TOKEN} has {len(token)} characters; expected "
                f"{SHORTEST_TOKEN} or more that can be printed in ASCII"
            )
        return token


def join_cluster(init: Callable[..., Any], address: str, **how: Any) -> None:  # noqa: ANN401
    """Call Ray's `init` on an address, `auto` or `local`; `ConfigError` at once if none answers."""
    try:
        if address not in ("auto", "local"):
            host, colon, port = address.rpartition("://")[2].rpartition(":")
            if not colon or not port.isdecimal():
                raise ValueError("expected HOST:PORT or ray://HOST:PORT")
            socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()
        init(address, **how)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot join the Ray cluster {address!r} ({error}); give its address, or 'local' to "
            f"start one here"
        ) from error
