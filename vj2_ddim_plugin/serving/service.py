"""What a served bundle answers to each HTTP request; needs no server, and does no waiting.

`open` turns a request into a response, or into what the sampler is to do; `answer_all` does that
for several at once; `close` turns an answer into a response.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from vj2_ddim_plugin.errors import ContextError, ServingError, VJ2DDIMError
from vj2_ddim_plugin.interface import PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.planning.checks import checked_context
from vj2_ddim_plugin.protocol import HEADER_LENGTH, Message, Tensor, read_message, write_message
from vj2_ddim_plugin.schedule import TimestepPairs
from vj2_ddim_plugin.serving import ServeSettings
from vj2_ddim_plugin.serving.sampling import Answer, SampleRequest
from vj2_ddim_plugin.settings import shown

__all__ = ["Response", "ServedModel", "refusal"]

ASKED = (
    "num_candidates", "num_inference_steps", "guidance_scale", "temperature", "project",
    "timestep_spacing",
)  # fmt: skip
"""Settings of a search that a request may set, as parameters."""
PARAMETERS = {*ASKED, "manifest_sha256", "timeout", "binary_data_output", "priority"}
LONGEST_ID = 200
MOST_SAMPLED = 2**28  # numbers of what one request samples


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServedModel:
    """A bundle under its name, with the limits of `settings`; `token` is empty where none is asked.

    Threads may share it.
    """

    def __init__(
        self, model: BundleModel, name: str, settings: ServeSettings, token: str = ""
    ) -> None:
        self.model, self.name, self.settings = model, name, settings
        self._authorization = f"Bearer {token}".encode() if token else b""
        spec, condition = model.action_spec, model.condition
        actions, diffused = (spec.length, spec.num_channels), spec.diffused_shape
        self._digest = model.bundle.digest
        floats = ("FP32", "FP16")
        self._context = {each: Tensor((-1, *of), floats) for each, of in condition.inputs.items()}
        self._inputs = {
            **self._context,
            "seed": Tensor((-1,), ("UINT64", "INT64")),
            "sample": Tensor((-1, -1, *diffused)),
            "timesteps": Tensor((-1, 2), ("INT64",)),
            "candidates": Tensor((-1, -1, *actions), ("FP32", "FP64")),
        }
        self._outputs = {
            "candidates": Tensor((-1, -1, *actions)),
            "pred_original_sample": Tensor((-1, -1, *diffused)),
            "model_output": Tensor((-1, -1, *diffused)),
        }
        if model.ranker is not None:
            self._outputs["predicted_cost"] = Tensor((-1, -1))

    def open(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Response | SampleRequest:
        """The response to a request, or what it asks of the sampler. Header names in lower case."""
        try:
            parts = path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["v2", "health"] and parts[2:] in (["live"], ["ready"]):
                return _json({parts[2]: True})
            if self._authorization:
                given = headers.get("authorization", "").encode()
                if not hmac.compare_digest(given, self._authorization):
                    raise ServingError("the header Authorization must be 'Bearer TOKEN'", 401)
            return self._routed(method, parts, headers, body)
        except VJ2DDIMError as error:
            return refusal(error)

    def close(self, request: SampleRequest, answer: Answer) -> Response:
        """The response of an answer."""
        if isinstance(answer, VJ2DDIMError):
            theirs = isinstance(answer, ServingError | ContextError)
            return refusal(answer if theirs else ServingError(str(answer), 500))
        named = request.in_binary
        fields = {"model_name": self.name, "model_version": "1"}
        if request.id:
            fields["id"] = request.id
        headers, content = write_message("outputs", answer, fields, lambda name: name in named)
        return Response(200, headers, content)

    def _routed(
        self, method: str, parts: list[str], headers: Mapping[str, str], body: bytes
    ) -> Response | SampleRequest:
        if parts == ["v2"]:
            told = {"name": "vj2-ddim", "version": version("vj2-ddim-plugin")}
            return _json({**told, "extensions": ["binary_tensor_data"]})
        if parts[:2] != ["v2", "models"] or len(parts) < 3:
            raise ServingError(f"there is no {shown('/' + '/'.join(parts))} here", 404)
        if parts[2] != self.name:
            raise ServingError(f"there is no model {shown(parts[2])}; use {self.name!r}", 404)
        rest = parts[3:]
        if rest[:1] == ["versions"]:
            if rest[1:2] != ["1"]:
                raise ServingError(f"{self.name!r} has the version '1' alone", 404)
            rest = rest[2:]
        if rest == ["infer"]:
            if method != "POST":
                raise ServingError(f"infer takes POST; found {shown(method)}", 405)
            if headers.get("content-encoding", "identity") != "identity":
                raise ServingError("requests must not be compressed", 415)
            return self._asked(headers, body)
        if rest == ["ready"]:
            return _json({"name": self.name, "ready": True})
        if rest == ["config"] or not rest:
            return _json(self._metadata())
        raise ServingError(f"there is no {shown('/'.join(rest))} of a model", 404)

    def _metadata(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "name": self.name,
            "versions": ["1"],
            "platform": "vj2_ddim_onnxruntime",
            "inputs": [tensor.described(name) for name, tensor in self._inputs.items()],
            "outputs": [tensor.described(name) for name, tensor in self._outputs.items()],
            "parameters": {
                "provider": self.model.provider,
                "max_candidates": settings.max_candidates,
                "max_inference_steps": settings.max_inference_steps,
                "max_request_bytes": settings.max_request_bytes,
                "max_batch_size": settings.max_batch_size,
                "manifest_sha256": self._digest,
                "manifest": self.model.bundle.manifest,
            },
        }

    def _asked(self, headers: Mapping[str, str], body: bytes) -> SampleRequest:
        """A request for samples, with every array and every number checked."""
        most = self.settings.max_request_bytes // 2
        length = headers.get(HEADER_LENGTH.lower())
        message = read_message("inputs", body, length, self._inputs, most)
        search, arrays = self._settings(message), message.arrays
        wanted, in_binary = self._wanted(message)
        batch = self._batch(arrays, search.num_candidates)
        context = checked_context(
            PlanningProblem({each: arrays[each] for each in arrays if each in self._context}),
            self.model.condition,
        )
        timeout = message.parameters.get("timeout", 0)
        if type(timeout) is not int or timeout < 0:
            raise ServingError(f"timeout must be microseconds, 0 for none; found {shown(timeout)}")
        for name in {"sample", "candidates"} & set(arrays):
            if not np.isfinite(arrays[name]).all():
                raise ServingError(f"{name!r} has values that are NaN or infinite")
        seeds = arrays.get("seed", np.full(batch, search.seed, np.uint64))
        if (seeds < 0).any():
            raise ServingError("'seed' must be at least 0")
        return SampleRequest(
            batch=batch,
            settings=search,
            outputs=wanted,
            context=context,
            seeds=seeds.tolist(),
            sample=arrays.get("sample"),
            pairs=self._pairs(arrays, wanted, search),
            candidates=arrays.get("candidates"),
            expires=time.monotonic() + timeout / 1e6 if timeout else float("inf"),
            in_binary=in_binary,
            id=str(message.fields.get("id", ""))[:LONGEST_ID],
        )

    def _settings(self, message: Message) -> SearchSettings:
        """The settings of a search that a request asks for, within the limits."""
        given = message.parameters
        if unknown := sorted(set(given) - PARAMETERS):
            raise ServingError(
                f"parameter {shown(unknown[0])} is unknown; use {', '.join(sorted(PARAMETERS))}"
            )
        if (digest := given.get("manifest_sha256", self._digest)) != self._digest:
            raise ServingError(
                f"{self.name!r} is of the bundle {self._digest[:12]}..., the request is for "
                f"{shown(digest)[:13]}.... Connect anew",
                409,
            )
        search = SearchSettings(**{name: given[name] for name in ASKED if name in given})
        limit, steps = self.settings.max_inference_steps, search.steps(self.model.schedule)
        if steps > limit:
            raise ServingError(f"num_inference_steps must be at most {limit} here; found {steps}")
        search.check_model(self.model)
        return search

    def _wanted(self, message: Message) -> tuple[tuple[str, ...], frozenset[str]]:
        """The outputs asked for, all that fit unless told, and those of them in binary."""
        binary = message.parameters.get("binary_data_output", False) is True
        asked = message.fields.get("outputs", [])
        if not isinstance(asked, list) or len(asked) > len(self._outputs):
            raise ServingError(f"'outputs' must be a list of names; found {shown(asked)}")
        names, in_binary = [], set()
        for entry in asked:
            name = entry.get("name") if isinstance(entry, dict) else None
            if not isinstance(name, str) or name not in self._outputs or name in names:
                raise ServingError(
                    f"output {shown(entry)} is unknown or stands twice; use "
                    f"{', '.join(self._outputs)}"
                )
            names.append(name)
            parameters = entry.get("parameters")
            own = parameters.get("binary_data", binary) if isinstance(parameters, dict) else binary
            if own is True:
                in_binary.add(name)
        if not names:
            names = [name for name in ("candidates", "predicted_cost") if name in self._outputs]
            in_binary = set(names) if binary else set()
        return tuple(names), frozenset(in_binary)

    def _batch(self, arrays: Mapping[str, Any], count: int) -> int:
        """B, on which all arrays agree, with B * K within the limits."""
        sizes = {name: len(array) for name, array in arrays.items() if name != "timesteps"}
        if len(set(sizes.values())) > 1:
            raise ServingError(f"batch sizes disagree: {shown(sizes)}")
        if "sample" in arrays and "candidates" in arrays:
            raise ServingError("give 'sample' or 'candidates', not both")
        batch = next(iter(sizes.values()), 1)
        for name in {"sample", "candidates"} & set(arrays):
            count = arrays[name].shape[1]
        if batch * count > (limit := self.settings.max_candidates):
            raise ServingError(
                f"{batch} problems with {count} candidates each are {batch * count}; at most "
                f"{limit} are taken in one request"
            )
        spec = self.model.action_spec
        if batch * count * spec.length * spec.num_channels > MOST_SAMPLED:
            raise ServingError(f"{batch * count} candidates of this length are too many", 413)
        return batch

    def _pairs(
        self, arrays: Mapping[str, Any], wanted: tuple[str, ...], search: SearchSettings
    ) -> TimestepPairs:
        """The steps to take: those of a given sample, or all from pure noise."""
        if ("sample" in arrays) != ("timesteps" in arrays):
            raise ServingError("'sample' and 'timesteps' come together")
        if "model_output" in wanted and (len(arrays.get("timesteps", ())), len(wanted)) != (1, 1):
            raise ServingError("'model_output' is of one step of a 'sample', and asked for alone")
        if "timesteps" not in arrays:
            return search.pairs(self.model.schedule, search.steps(self.model.schedule))
        pairs: TimestepPairs = list(map(tuple, arrays["timesteps"].tolist()))
        limit, last = self.settings.max_inference_steps, self.model.schedule.num_train_timesteps
        if len(pairs) > limit or not all(-1 <= to < at < last for at, to in pairs):
            raise ServingError(
                f"'timesteps' must be at most {limit} pairs (timestep, prev_timestep) with {last} "
                f"> timestep > prev_timestep >= -1; found {shown(pairs)}"
            )
        return pairs


def refusal(error: VJ2DDIMError) -> Response:
    """An error as a response; one that is not of the protocol is a bad request as well."""
    status = error.status if isinstance(error, ServingError) else 400
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _json({"error": str(error)}, status, headers)


def _json(
    value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    content = json.dumps(value, separators=(",", ":")).encode()
    return Response(status, {"Content-Type": "application/json", **(headers or {})}, content)
