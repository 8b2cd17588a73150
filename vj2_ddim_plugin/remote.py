"""`RemoteOptimizer`: samples where a bundle is served (`vj2-ddim serve`), ranks and refines here.

It is a `DDIMOptimizer` whose denoising loops run elsewhere: noise, constraints, cost and choice
stay here, so that its plan is the local one to the last bit. A loop is one request; where part of
a plan is known (`frozen_action`, `fixed`) or noise is added on the way (`eta`), each step is one.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from vj2_ddim_plugin import ddim
from vj2_ddim_plugin.bundle import RANKER, Bundle, bundle_of
from vj2_ddim_plugin.errors import ConfigError, ServingError, VJ2DDIMError
from vj2_ddim_plugin.files import parse_json
from vj2_ddim_plugin.interface import FloatArray, PlanResult
from vj2_ddim_plugin.model import CostPredictor, EncodedContext
from vj2_ddim_plugin.optimizer import DDIMOptimizer, Fallback
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.planning.checks import checked_output
from vj2_ddim_plugin.planning.ranking import Predict
from vj2_ddim_plugin.planning.search import CandidateSearch
from vj2_ddim_plugin.process import tell_of_forks
from vj2_ddim_plugin.protocol import HEADER_LENGTH, Tensor, read_message, write_message
from vj2_ddim_plugin.schedule import TimestepPairs
from vj2_ddim_plugin.settings import Settings, declared, of_kind, setting, shown, with_changes

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RemoteModel", "RemoteOptimizer", "RemoteSettings"]

SCHEMES = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 1.0
MOST_BYTES = 2**31
LOST = (http.client.HTTPException, OSError)  # also of a replica that died in between
AGAIN = {429, 502, 503}


@dataclass(frozen=True)
class RemoteSettings(Settings):
    """How a server is asked.

    Raises:
        ConfigError: A setting is out of range.
    """

    timeout_s: float = setting(
        30.0, "Seconds that a request may take; a deadline shortens it.", above=0, high=86_400
    )
    max_retries: int = setting(
        30,
        "Times that a request is sent again where the connection is lost or the server is not "
        "ready, after pauses from 0.02 s to 1 s.",
        low=0,
        high=1000,
    )
    token: str = setting("", "What the server was started with, if it asks for one.")


class RemoteModel:
    """A served bundle: what it says of itself, and its sampler. Threads may share it.

    Args:
        address: `http://host:port/NAME`.
        settings: How it is asked.

    Raises:
        ConfigError: The address is none.
        ServingError: No server answers, or it does not serve such a bundle.
    """

    def __init__(self, address: str, settings: RemoteSettings) -> None:
        self._scheme, self._host, self._path = _taken_apart(address)
        self._settings, self._closed = settings, False
        self._begin()
        told = self.ask("GET", "", b"", {}, settings.timeout_s)[1]
        metadata = parse_json(told, address, ServingError)
        try:
            found = metadata["parameters"]
            self.bundle: Bundle = bundle_of(found["manifest"], Path(address))
            self.provider, digest = str(found["provider"]), found["manifest_sha256"]
        except (KeyError, TypeError, VJ2DDIMError) as error:
            raise ServingError(
                f"{address} does not serve a bundle of this project: {error}"
            ) from error
        self._digest = self.bundle.digest
        if digest != self._digest:
            raise ServingError(f"{address} serves a bundle that was changed on the way")
        self.action_spec, self.schedule = self.bundle.action_spec, self.bundle.schedule
        self.condition = self.bundle.condition

    @property
    def ranker(self) -> CostPredictor | None:
        """Where the bundle has one, it is asked there by `RemoteOptimizer`, not called here."""
        return None if RANKER not in self.bundle.graph_specs else self.denoise

    def denoise(self, *_: Any) -> Any:  # noqa: ANN401
        """Not here, nor `encode`: the server does both."""
        raise ConfigError("a RemoteModel samples whole plans; use it by RemoteOptimizer")

    encode = denoise

    def infer(
        self,
        arrays: Mapping[str, NDArray[Any]],
        output: str,
        like: FloatArray,
        parameters: Mapping[str, Any],
        seconds: float,
    ) -> FloatArray:
        """One output of the shape and type of `like`, or a `ServingError`."""
        known = {"manifest_sha256": self._digest, "timeout": int(1e6 * seconds)}
        wanted = [{"name": output, "parameters": {"binary_data": True}}]
        fields = {"parameters": {**known, **parameters}, "outputs": wanted}
        headers, body = write_message("inputs", arrays, fields)
        length, content = self.ask("POST", "/infer", body, headers, seconds)
        expected = {output: Tensor(like.shape, ("FP32", "FP64"))}
        answer = read_message("outputs", content, length, expected, max(1, like.size)).arrays
        if output not in answer:
            raise ServingError(f"the server's answer has no {output!r}")
        return answer[output]

    def ask(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> tuple[str | None, bytes]:
        """The header `HEADER_LENGTH` and the body that a server answers within so many seconds."""
        ends, pause, retries = time.monotonic() + seconds, FIRST_PAUSE_S, 0
        while True:
            if self._closed:
                raise ServingError("the connection was closed; connect again")
            if (left := ends - time.monotonic()) <= 0.0:
                raise ServingError(f"no answer from {self._place} within {seconds:g} s", 504)
            try:
                status, length, content = self._sent(method, path, body, headers, left)
                if status == 200:
                    return length, content
                failure = ServingError(f"{self._place} {_told(status, content)}", status)
            except TimeoutError:
                continue  # there is no time left
            except LOST as error:
                what = f"{type(error).__name__}: {error}"
                failure = ServingError(f"{self._place} does not answer ({what})", 503)
            if failure.status not in AGAIN or retries >= self._settings.max_retries:
                raise failure
            time.sleep(max(0.0, min(pause, ends - time.monotonic())))
            retries, pause = retries + 1, min(2 * pause, LONGEST_PAUSE_S)

    def close(self) -> None:
        """End all connections; asking afterwards is an error. Closing twice is fine."""
        self._closed = True
        self._end_connections()

    def after_fork(self) -> None:
        """The parent's connections are its own: here they are let go."""
        self._lock = threading.Lock()
        self._end_connections()

    def __del__(self) -> None:
        """Leave no connection open; there is none where the constructor did not get so far."""
        with suppress(AttributeError):
            self._end_connections()

    def __getstate__(self) -> dict[str, Any]:
        """All but the connections."""
        return {name: of for name, of in self.__dict__.items() if name not in ("_idle", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connections of this process."""
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        tell_of_forks(self)

    @property
    def _place(self) -> str:
        return f"{self._scheme}://{self._host}"

    def _sent(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> tuple[int, str | None, bytes]:
        """Status, `HEADER_LENGTH` and body of one answer, on a connection that is kept."""
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        connection = kept or SCHEMES[self._scheme](self._host, timeout=seconds)
        try:
            connection.timeout = seconds
            if connection.sock is not None:
                connection.sock.settimeout(seconds)
            token = self._settings.token
            given = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request(method, self._path + path, body or None, {**headers, **given})
            response = connection.getresponse()
            content = response.read(MOST_BYTES)
            cut = response.length and len(content) < MOST_BYTES  # no error: the other side died
            if cut or (response.status == 200 and not content):
                raise http.client.IncompleteRead(content, response.length)
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.append(connection)
        return response.status, response.getheader(HEADER_LENGTH), content

    def _end_connections(self) -> None:
        with self._lock:
            ended, self._idle = self._idle, []
        for connection in ended:
            connection.close()


class _RemoteSearch(CandidateSearch):
    """A `CandidateSearch` whose loops run on a server."""

    _model: RemoteModel
    _context: Mapping[str, FloatArray]

    def run(self) -> PlanResult:
        """As there; where the deadline ends a request, the best so far."""
        try:
            return super().run()
        except ServingError:
            if self._clock.remaining() > 0.0 or not self._pool.has_plans():
                raise
            return self._result()

    def _encode(self, context: Mapping[str, FloatArray]) -> EncodedContext | None:
        self._context = context
        return None

    def _predictor(self) -> Predict | None:
        def predict(actions: FloatArray) -> FloatArray:
            like = np.zeros(actions.shape[:2], np.float32)
            return self._asked("predicted_cost", like, {"candidates": actions})

        return predict

    def _steps_from(
        self, sample: FloatArray, count: int, pairs: TimestepPairs
    ) -> Iterator[tuple[int, ddim.Step]]:
        if self._rules.part_is_known or self._settings.eta:
            yield from super()._steps_from(sample, count, pairs)
            return
        final = self._timed("denoise", self._looped, "pred_original_sample", sample, pairs)
        yield len(pairs), ddim.Step(final, final)

    def _denoiser(self, count: int) -> ddim.Denoiser:
        def denoiser(sample: FloatArray, timestep: int) -> FloatArray:
            once = [(timestep, -1)]
            return self._timed("denoise", self._looped, "model_output", sample, once)

        return denoiser

    def _looped(self, output: str, sample: FloatArray, pairs: TimestepPairs) -> FloatArray:
        """What the server makes of `[B * K, M, C]`, of that shape."""
        guided = self._settings.guidance_scale != 1.0
        self._denoiser_evaluations += len(sample) * len(pairs) * (2 if guided else 1)
        shaped = sample.reshape(self._batch, -1, *sample.shape[1:])
        arrays = {"sample": shaped, "timesteps": np.array(pairs, np.int64)}
        found = self._asked(output, shaped, arrays).reshape(sample.shape)
        return checked_output(found, sample)

    def _asked(
        self, output: str, like: FloatArray, arrays: Mapping[str, NDArray[Any]]
    ) -> FloatArray:
        limit = self._model._settings.timeout_s
        seconds = min(limit, max(self._clock.remaining(), 0.0))
        told = {"guidance_scale": self._settings.guidance_scale}
        told["num_inference_steps"] = self._settings.steps(self._model.schedule)
        return self._model.infer({**self._context, **arrays}, output, like, told, seconds)


class RemoteOptimizer(DDIMOptimizer):
    """A `DDIMOptimizer` that samples by a served bundle; `connect` makes one.

    All settings and constraints mean what they mean there, and its plans are the same to the last
    bit. Under a deadline, a request ends with it: the plan is then the best so far, the warm start
    for example; where there is none, a `ServingError` that `on_failure` may answer.
    """

    _search: ClassVar[Callable[..., CandidateSearch]] = _RemoteSearch

    @classmethod
    def connect(
        cls,
        address: str,
        settings: SearchSettings | None = None,
        on_failure: Sequence[Fallback] = (),
        **changes: Any,  # noqa: ANN401
    ) -> Self:
        """Connect to a served bundle, and plan once to see that it works.

        Args:
            address: `http://host:port/NAME`.
            settings: How to search; None for the defaults.
            on_failure: As for `DDIMOptimizer`.
            **changes: Fields of `SearchSettings` or `RemoteSettings` that differ from the
                defaults, for example `num_candidates=8` or `timeout_s=2.0`.

        Raises:
            ConfigError: A setting or the address cannot be.
            ServingError: No server answers, or it does not serve such a bundle.
        """
        known = declared(RemoteSettings)
        asked = RemoteSettings(**{each: changes.pop(each) for each in known if each in changes})
        search = with_changes(of_kind(SearchSettings, settings), changes, ["on_failure", *known])
        optimizer = cls(RemoteModel(address, asked), search, on_failure=on_failure)
        optimizer.warm_up()
        return optimizer


def _taken_apart(address: object) -> tuple[str, str, str]:
    """Scheme, host and port, and the path of the model."""
    with suppress(ValueError):
        parts = urlsplit(address if isinstance(address, str) else "")
        name = parts.path.strip("/")
        if parts.scheme in SCHEMES and parts.hostname and name and "/" not in name and parts.port:
            return parts.scheme, parts.netloc.rpartition("@")[2], f"/v2/models/{name}"
    raise ConfigError(f"an address is 'http://host:port/NAME'; found {shown(address)}")


def _told(status: int, content: bytes) -> str:
    """What a server said of a request that failed."""
    with suppress(VJ2DDIMError):
        said = parse_json(content, "", ServingError).get("error")
        return f"refused the request ({status}): {said}"
    return f"answered with status {status}"
