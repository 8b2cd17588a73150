"""Requests for samples, answered together: what may share a run of the denoiser does.

A row of a batch does not depend on the rows beside it, so what is answered is what each request
would get alone, and what a `DDIMOptimizer` of this bundle would sample, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from vj2_ddim_plugin import ddim
from vj2_ddim_plugin.errors import ServingError, VJ2DDIMError
from vj2_ddim_plugin.gestures import diffused_bounds
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.model import EncodedContext, SamplerModel, ranker_of
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.planning.checks import checked_condition, checked_output
from vj2_ddim_plugin.planning.ranking import predicted_cost, projected
from vj2_ddim_plugin.schedule import TimestepPairs

__all__ = ["Answer", "SampleRequest", "answer_all"]

Answer = dict[str, FloatArray] | VJ2DDIMError
"""The outputs of a request by name, or why there are none."""


@dataclass(frozen=True)
class SampleRequest:
    """What is asked of the sampler for B problems; every array was checked."""

    batch: int
    settings: SearchSettings
    outputs: tuple[str, ...]  # the names of those wanted
    context: Mapping[str, FloatArray]
    pairs: TimestepPairs  # the steps to take
    seeds: Sequence[int] = ()  # one a problem, to draw from
    sample: FloatArray | None = None  # `[B, K, M, C]`, to start from instead
    candidates: FloatArray | None = None  # `[B, K, L, A]`, to be ranked; nothing is sampled
    expires: float = float("inf")  # by `time.monotonic`
    in_binary: frozenset[str] = frozenset()  # the outputs that are not wanted as JSON
    id: str = ""  # as the client calls it

    @property
    def once(self) -> bool:
        """Whether the model output of one step is asked, not x0."""
        return "model_output" in self.outputs

    @property
    def key(self) -> tuple[object, ...]:
        """Requests whose keys are equal may share every run."""
        return self.once, self.settings.guidance_scale, tuple(self.pairs)

    def start(self, shape: tuple[int, ...]) -> FloatArray:
        """What its loop starts from: what was given, or the noise of `CandidateSearch`."""
        if self.sample is not None:
            return self.sample
        shape = (self.settings.num_candidates, *shape)
        drawn = [
            np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in self.seeds
        ]
        return np.float32(self.settings.temperature) * np.stack(drawn)


def answer_all(model: SamplerModel, requests: Sequence[SampleRequest]) -> list[Answer]:
    """The answer to each request; one that fails does not touch the others."""
    encoded, failed = _encode(model, requests)
    sampled: dict[int, FloatArray] = {}
    keys = {
        number: request.key
        for number, request in enumerate(requests)
        if request.candidates is None and number not in failed
    }
    for _, group in groupby(sorted(keys, key=lambda number: str(keys[number])), keys.__getitem__):
        together = {number: requests[number] for number in group}
        try:
            sampled |= _run(model, together, encoded)
        except VJ2DDIMError as error:
            failed |= dict.fromkeys(together, error)
    answers: list[Answer] = []
    for number, request in enumerate(requests):
        try:
            if number in failed:
                raise failed[number]
            answers.append(_outputs(model, request, sampled.get(number), encoded.get(number)))
        except VJ2DDIMError as error:
            answers.append(error)
    return answers


def _encode(
    model: SamplerModel, requests: Sequence[SampleRequest]
) -> tuple[dict[int, EncodedContext], dict[int, VJ2DDIMError]]:
    """The condition tokens of each request by number, and those that are meaningless."""
    encoded: dict[int, EncodedContext] = {}
    failed: dict[int, VJ2DDIMError] = {}
    if not (names := list(model.condition.inputs)):
        return encoded, failed
    whole = {name: np.concatenate([each.context[name] for each in requests]) for name in names}
    tokens, first = model.encode(whole), 0
    for number, request in enumerate(requests):
        rows = slice(first, first := first + request.batch)
        own = EncodedContext(*(part[rows] for part in tokens or ()))
        try:
            encoded[number] = checked_condition(own) or own
        except VJ2DDIMError as error:
            failed[number] = error
    return encoded, failed


def _run(
    model: SamplerModel,
    requests: Mapping[int, SampleRequest],
    encoded: Mapping[int, EncodedContext],
) -> dict[int, FloatArray]:
    """Run requests that share their key; what each samples, `[B, K, M, C]`, by number."""
    first, shape = next(iter(requests.values())), model.action_spec.diffused_shape
    starts = {number: request.start(shape) for number, request in requests.items()}
    sample = np.concatenate([start.reshape(-1, *shape) for start in starts.values()])

    def denoiser(kind: int) -> ddim.Denoiser:
        tokens = None
        if encoded:
            counts = {number: start.shape[1] for number, start in starts.items()}
            rows = [np.repeat(encoded[n][kind], count, axis=0) for n, count in counts.items()]
            tokens = np.concatenate(rows)
        return lambda given, timestep: checked_output(model.denoise(given, timestep, tokens), given)

    guided = denoiser(0)
    if (scale := first.settings.guidance_scale) != 1.0:
        guided = ddim.classifier_free_guidance(guided, denoiser(1), scale)
    if first.once:
        final = guided(sample, first.pairs[0][0])
    else:
        low, high = diffused_bounds(model.action_spec)
        clip = ddim.clip_to((low.astype(np.float32), high.astype(np.float32)))
        for step in ddim.ddim_steps(guided, sample, first.pairs, model.schedule, correct=clip):
            final = step.pred_original_sample
    ends = np.cumsum([start.shape[0] * start.shape[1] for start in starts.values()])
    each = zip(starts.items(), np.split(final, ends[:-1]), strict=True)
    return {number: rows.reshape(start.shape) for (number, start), rows in each}


def _outputs(
    model: SamplerModel,
    request: SampleRequest,
    diffused: FloatArray | None,
    encoded: EncodedContext | None,
) -> dict[str, FloatArray]:
    """What a request asked for, of what was sampled for it."""
    found: dict[str, FloatArray] = {}
    actions = request.candidates
    if diffused is not None:
        found = dict.fromkeys(("pred_original_sample", "model_output"), diffused)
        if {"candidates", "predicted_cost"} & set(request.outputs):
            actions = projected(diffused, model.action_spec, request.settings.project)[1]
    if actions is not None:
        found["candidates"] = actions
        ranker = ranker_of(model)
        if "predicted_cost" in request.outputs and ranker is not None and encoded is not None:
            cost = predicted_cost(ranker, actions, encoded.condition, model.action_spec)
            found["predicted_cost"] = cost
    if missing := [name for name in request.outputs if name not in found]:
        raise ServingError(f"{missing[0]!r} cannot be had from these inputs")
    return {name: found[name] for name in request.outputs}
