"""Requests for samples, answered together: what may share a run of the denoiser does.

A row of a batch does not depend on the rows beside it, so what is answered is what each request
would get alone, and what a `DDIMOptimizer` of this bundle would sample, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import numpy as np

from vj2_ddim_plugin import ddim
from vj2_ddim_plugin.errors import ServingError, VJ2DDIMError
from vj2_ddim_plugin.gestures import diffused_bounds, encode, project
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
    seeds: Sequence[int] = ()  # one a problem, to draw from
    warm_start: FloatArray | None = None  # `[B, 1, L, A]`
    sample: FloatArray | None = None  # `[B, K, M, C]`, to start from instead of seeds
    pairs: TimestepPairs = field(default_factory=list)  # the steps from that sample
    candidates: FloatArray | None = None  # `[B, K, L, A]`, to be ranked; nothing is sampled
    expires: float = float("inf")  # by `time.monotonic`
    in_binary: frozenset[str] = frozenset()  # the outputs that are not wanted as JSON
    id: str = ""  # as the client calls it


@dataclass(frozen=True)
class _Loop:
    """One DDIM loop of a request."""

    owner: int  # the request's number
    sample: FloatArray  # `[B, K, M, C]`
    pairs: TimestepPairs
    draw: Callable[[], FloatArray]  # noise of the sample's shape
    settings: SearchSettings
    once: bool  # whether the model output of one step is asked, not x0

    @property
    def key(self) -> tuple[object, ...]:
        """Loops whose keys are equal may share every run."""
        return self.once, self.settings.guidance_scale, self.settings.eta, tuple(self.pairs)


def answer_all(model: SamplerModel, requests: Sequence[SampleRequest]) -> list[Answer]:
    """The answer to each request; one that fails does not touch the others."""
    encoded, failed = _encode(model, requests)
    parts: list[list[FloatArray]] = [[] for _ in requests]
    starts = [_loops(model, number, request) for number, request in enumerate(requests)]
    while loops := [loop for start in starts for loop in _next(start) if loop.owner not in failed]:
        for _, group in groupby(sorted(loops, key=lambda loop: str(loop.key)), lambda it: it.key):
            together = list(group)
            try:
                results = _run(model, together, encoded)
            except VJ2DDIMError as error:
                failed |= {loop.owner: error for loop in together}
                continue
            for loop, result in zip(together, results, strict=True):
                parts[loop.owner].append(result)
    answers: list[Answer] = []
    for number, request in enumerate(requests):
        try:
            if number in failed:
                raise failed[number]
            answers.append(_outputs(model, request, parts[number], encoded.get(number)))
        except VJ2DDIMError as error:
            answers.append(error)
    return answers


def _next(start: Iterator[_Loop]) -> list[_Loop]:
    """The next loop of a request, or none."""
    return [loop for loop in [next(start, None)] if loop is not None]


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


def _loops(model: SamplerModel, number: int, request: SampleRequest) -> Iterator[_Loop]:
    """The loops of a request, one after another: as `CandidateSearch` would begin its own."""
    settings, schedule, spec = request.settings, model.schedule, model.action_spec
    make = partial(_Loop, number, settings=settings, once="model_output" in request.outputs)
    if request.sample is not None:
        yield make(request.sample, request.pairs, lambda: np.zeros(0, np.float32))
    if request.sample is not None or request.candidates is not None:
        return
    streams = [np.random.default_rng(seed) for seed in request.seeds]

    def draw(count: int) -> FloatArray:
        shape = (count, *spec.diffused_shape)
        return np.stack([rng.standard_normal(shape, np.float32) for rng in streams])

    warm_start, count = request.warm_start, settings.num_candidates
    near = 0 if warm_start is None else int(settings.warm_start_share * count)
    steps, pure = settings.steps(schedule), count - near
    noise = np.float32(settings.temperature) * draw(pure)
    yield make(noise, settings.pairs(schedule, steps), partial(draw, pure))
    if warm_start is not None and near:
        original = encode(project(np.repeat(warm_start, near, axis=1), spec), spec)
        noisy = ddim.add_noise(original, draw(near), settings.middle(schedule), schedule)
        yield make(noisy, settings.middle_pairs(schedule, steps), partial(draw, near))


def _run(
    model: SamplerModel, loops: Sequence[_Loop], encoded: Mapping[int, EncodedContext]
) -> list[FloatArray]:
    """Run loops that share their key; what each samples, `[B, K, M, C]`."""

    def flat(arrays: Sequence[FloatArray]) -> FloatArray:
        return np.concatenate([array.reshape(-1, *array.shape[2:]) for array in arrays])

    def denoiser(kind: int) -> ddim.Denoiser:
        if not encoded:
            return lambda sample, timestep: _denoise(model, sample, timestep, None)
        counts = [loop.sample.shape[1] for loop in loops]
        own = [encoded[loop.owner][kind] for loop in loops]
        rows = [np.repeat(each, count, axis=0) for each, count in zip(own, counts, strict=True)]
        tokens = np.concatenate(rows)
        return lambda sample, timestep: _denoise(model, sample, timestep, tokens)

    first, sample = loops[0], flat([loop.sample for loop in loops])
    guided = denoiser(0)
    if (scale := first.settings.guidance_scale) != 1.0:
        guided = ddim.classifier_free_guidance(guided, denoiser(1), scale)
    if first.once:
        final = guided(sample, first.pairs[0][0])
    else:
        low, high = diffused_bounds(model.action_spec)
        for step in ddim.ddim_steps(
            guided,
            sample,
            first.pairs,
            model.schedule,
            eta=first.settings.eta,
            correct=ddim.clip_to((low.astype(np.float32), high.astype(np.float32))),
            draw_noise=lambda: flat([loop.draw() for loop in loops]),
        ):
            final = step.pred_original_sample
    ends = np.cumsum([loop.sample.shape[0] * loop.sample.shape[1] for loop in loops])
    each = zip(np.split(final, ends[:-1]), loops, strict=True)
    return [rows.reshape(loop.sample.shape) for rows, loop in each]


def _denoise(
    model: SamplerModel, sample: FloatArray, timestep: int, tokens: FloatArray | None
) -> FloatArray:
    return checked_output(model.denoise(sample, timestep, tokens), sample)


def _outputs(
    model: SamplerModel,
    request: SampleRequest,
    parts: Sequence[FloatArray],
    encoded: EncodedContext | None,
) -> dict[str, FloatArray]:
    """What a request asked for, of what its loops sampled."""
    found: dict[str, FloatArray] = {}
    actions = request.candidates
    if parts:
        diffused = np.concatenate(parts, axis=1)
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
