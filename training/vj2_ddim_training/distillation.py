"""Distillation: a student that samples in a step or two what its teacher samples in many.

DDIM without added noise is a map from noise to samples, so what a student has to learn is a
function: of a noise and a condition, the sample that its teacher ends at (Luhman & Luhman 2021,
"Knowledge Distillation in Iterative Generative Models"). Where a goal can be reached in several
ways, other noises go on ending at other ways. The teacher's guidance is in its samples.

The student stays a denoiser under its teacher's schedule, one DDIM step of which arrives. Made for
more steps, it takes the later ones from its own sample, and so learns to mend it.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vj2_ddim_plugin import ddim
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures import diffused_bounds
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.model import EncodedContext, SamplerModel, ranker_of
from vj2_ddim_plugin.schedule import conversion
from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint
from vj2_ddim_training.config import DistillConfig
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.examples import Batch, Examples
from vj2_ddim_training.learning_rate import warmup_cosine
from vj2_ddim_training.loop import ShuffledTask, TrainingLoop, name_rows
from vj2_ddim_training.ranker.network import (
    RankedSampler,
    RankerNetwork,
    TrainedRanker,
    model_fingerprint,
    save_ranker,
    weights_fingerprint,
)
from vj2_ddim_training.resumable import forget, made_once, run_resumably
from vj2_ddim_training.saved import versions
from vj2_ddim_training.validation import BestEpoch, SuccessMeasure, tried_out

__all__ = ["Lessons", "distill", "distill_to", "learn", "lessons_of"]

PROBLEMS_AT_ONCE = 64
SMALLEST_NOISE = 0.25  # std of a starting noise: lower temperatures are not taught
WARMUP_SHARE, CLIP_NORM = 0.02, 1.0
BLUNT = 0.03  # differences below it count squared, in the sampler's units


class Lessons(NamedTuple):
    """n problems, K arrays each: where the teacher began, at which timestep, and where it ended."""

    condition: FloatArray  # tokens [n, S, W]; [n, 0, 0] without a condition
    sample: FloatArray  # [n, K, M, C]
    timestep: NDArray[np.int64]  # [n, K]
    result: FloatArray  # [n, K, M, C]


def lessons_of(
    teacher: SamplerModel, examples: Examples, config: DistillConfig, progress: Progress = silent
) -> Lessons:
    """Let the teacher sample for problems drawn from the examples."""
    rng = np.random.default_rng(config.seed)
    rows, parts = rng.permutation(len(examples))[: config.num_problems], []
    for begin in range(0, len(rows), PROBLEMS_AT_ONCE):
        batch = examples.batch(rows[begin : begin + PROBLEMS_AT_ONCE])
        parts.append(_lessons(teacher, batch, config, rng))
        progress("ask the teacher", begin + len(batch.original), len(rows))
    return Lessons(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _lessons(
    teacher: SamplerModel, batch: Batch, config: DistillConfig, rng: np.random.Generator
) -> Lessons:
    """Those of a few problems: from pure noise, then from one timestep in the middle."""
    num, spec, schedule = len(batch.original), teacher.action_spec, teacher.schedule
    last = schedule.num_train_timesteps - 1
    again, middle = int(config.middle_share * config.num_noises), int(rng.integers(1, last))
    count, encoded = config.num_noises - again, teacher.encode(batch.inputs)

    def noise(count: int) -> FloatArray:
        return rng.standard_normal((num, count, *spec.diffused_shape), np.float32)

    size = np.minimum(rng.uniform(SMALLEST_NOISE, 1.25, (num, count, 1, 1)), 1.0)
    begin = size.astype(np.float32) * noise(count)
    end = _ends(teacher, encoded, begin, last, config)
    if config.kept_share < 1.0:
        end = _nearest_kept(teacher, encoded, end, config.kept_share)
    noisy = ddim.add_noise(end[:, :again], noise(again), middle, schedule)
    ends = end, _ends(teacher, encoded, noisy, middle, config)
    tokens = np.zeros((num, 0, 0), np.float32) if encoded is None else encoded.condition
    timesteps = np.repeat([[last] * count + [middle] * again], num, axis=0)
    pairs = ((begin, noisy), ends)
    sample, result = (np.concatenate(pair, axis=1, dtype=np.float32) for pair in pairs)
    return Lessons(tokens, sample, timesteps, result)


def _ends(
    teacher: SamplerModel, encoded: EncodedContext | None, noisy: FloatArray, start: int,
    config: DistillConfig,
) -> FloatArray:  # fmt: skip
    """Where the teacher ends, guided, from `[B, K, M, C]` at a timestep."""
    flat = noisy.reshape(-1, *noisy.shape[2:])
    if not len(flat):
        return noisy
    tokens: list[Any] = [np.repeat(of, noisy.shape[1], axis=0) for of in encoded or ()]
    own, free = (partial(teacher.denoise, condition=each) for each in tokens or [None, None])
    guided = ddim.classifier_free_guidance(own, free, config.guidance_scale)
    low, high = (of.astype(np.float32) for of in diffused_bounds(teacher.action_spec))
    last = teacher.schedule.num_train_timesteps - 1
    steps = max(1, round(config.teacher_steps * start / last))
    how: dict[str, Any] = {"start_timestep": start, "correct": ddim.clip_to((low, high))}
    return ddim.ddim_sample(guided, flat, teacher.schedule, steps, **how).reshape(noisy.shape)


def _nearest_kept(
    teacher: SamplerModel, encoded: EncodedContext | None, ends: FloatArray, share: float
) -> FloatArray:
    """`[B, K, M, C]`, the ranker's best as they are; the others become the nearest of these."""
    ranker = ranker_of(teacher)
    if encoded is None or ranker is None:
        raise ConfigError("kept_share below 1 needs a teacher with its ranker")
    num, count = ends.shape[:2]
    tokens = np.repeat(encoded.condition, count, axis=0)
    cost = ranker(ends.reshape(-1, *ends.shape[2:]), tokens).reshape(num, count)
    best = np.argsort(cost, axis=1)[:, : max(1, round(share * count))]
    flat = ends.reshape(num, count, -1)
    kept = np.take_along_axis(flat, best[..., None], axis=1)
    apart = np.square(flat[:, :, None] - kept[:, None]).sum(axis=-1)
    nearest = np.take_along_axis(best, apart.argmin(axis=-1), axis=1)
    return np.take_along_axis(ends, nearest[..., None, None], axis=1)


class DistillationTask(ShuffledTask):
    """How far a student's samples are from its teacher's; its state is the best epoch."""

    def __init__(
        self, model: DiffusionModel, lessons: Lessons, config: DistillConfig, best: BestEpoch | None
    ) -> None:
        how = config.batch_size, config.num_epochs, config.seed
        super().__init__(len(lessons.sample), 1.0, *how)
        self.model, self.best, self._lessons = model, best, lessons
        to_device = partial(torch.as_tensor, device=next(model.parameters()).device)
        schedule, bounds = model.schedule, diffused_bounds(model.action_spec)
        self._here, self._last = to_device, schedule.num_train_timesteps - 1
        self._pairs = schedule.timesteps(schedule.num_inference_steps)
        self._low, self._high = (to_device(np.asarray(of, np.float32)) for of in bounds)
        weights = [conversion(schedule.prediction_type, a)[0] for a in schedule.alphas_cumprod]
        self._weights = to_device(np.array(weights, np.float32))  # of sample and output in x0

    def loss(self, step: int) -> Tensor:
        """Of the batch of this step, at each of the steps that the student is made for."""
        rows = self.rows(step)
        condition, sample, timestep, result = (self._here(of[rows]) for of in self._lessons)
        condition = condition.repeat_interleave(sample.shape[1], dim=0)
        tokens = condition if condition.numel() else None
        sample, timestep, result = (of.flatten(0, 1) for of in (sample, timestep, result))
        pure, losses = timestep == self._last, []
        for at, to in self._pairs:
            here = torch.where(pure, at, timestep)
            of_sample, of_output = self._weights[here][..., None, None].unbind(dim=1)
            original = of_sample * sample + of_output * self.model(sample, here, tokens)
            losses.append(_distance(original, result))
            own = original.detach().clamp(self._low, self._high)
            weights = ddim.affine_step(self.model.schedule, at, to, 0.0)
            moved = weights.prev_of_x0 * own + weights.prev_of_sample * sample
            sample = torch.where(pure[:, None, None], moved, sample)
        return torch.stack(losses).mean()

    def batch_name(self, step: int) -> str:
        """The problems of a step."""
        return name_rows(self.rows(step), "problems")


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean pseudo-Huber distance (Song & Dhariwal 2024, "Improved Techniques", eq. 8).

    Squares would draw a student between two ways where it cannot tell which one is meant.
    """
    squared = (found - wanted).square().flatten(1).sum(dim=1)
    return ((squared + BLUNT**2).sqrt() - BLUNT).mean()


def learn(
    student: DiffusionModel,
    lessons: Lessons,
    config: DistillConfig,
    progress: Progress = silent,
    *,
    success: SuccessMeasure | None = None,
    resume_file: Path | None = None,
    made_of: tuple[str, ...] = (),
) -> DiffusionModel:
    """Train a student's denoiser; returns the averaged model, of the best epoch if there is one."""
    best = None if success is None else BestEpoch(partial(tried_out, success))
    task, weights = DistillationTask(student, lessons, config, best), student.denoiser.parameters()
    adam = torch.optim.AdamW(weights, config.lr, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, warmup_cosine(task.total_steps, WARMUP_SHARE))
    how: dict[str, Any] = {"clip_norm": CLIP_NORM, "ema_decay": config.ema_decay}
    loop = TrainingLoop(task, adam, rate, progress=partial(progress, "train the student"), **how)
    settings = {**config.to_dict(), "made_of": list(made_of), "keeps_best": best is not None}
    run_resumably(loop, resume_file, settings, best)
    averaged: DiffusionModel = loop.model  # type: ignore[assignment]
    if best is not None:
        averaged.load_state_dict(best.weights)
    return averaged.eval()


def distill(
    teacher: Checkpoint,
    examples: Examples,
    config: DistillConfig,
    progress: Progress = silent,
    *,
    ranker: RankerNetwork | None = None,
    success: SuccessMeasure | None = None,
    resume_file: Path | None = None,
) -> Checkpoint:
    """Make a student of a teacher, which stays as it is.

    Args:
        teacher: A checkpoint.
        examples: Training examples of its kind, of which the actions are not used.
        config: How.
        progress: Told phase, done, in all.
        ranker: The teacher's, which chooses what is taught where `kept_share` is below 1.
        success: Called with the student after every epoch; the most successful one is kept.
        resume_file: As for `train_ranker`; the lessons lie beside it, as `.lessons`.

    Returns:
        The student. Its schedule recommends `config.num_inference_steps`, and guidance is refused.

    Raises:
        ConfigError: The teacher predicts epsilon, or lacks the null condition or the ranker asked.
        CheckpointError: `resume_file` is of another training.
    """
    model = teacher.model.eval()
    _require_teacher(model, config, ranker)
    made_of: tuple[str, ...] = model_fingerprint(model), examples.data_fingerprint
    sampler = TorchSampler(model)
    if ranker is not None and config.kept_share < 1.0:
        sampler, made_of = RankedSampler(model, ranker), (*made_of, weights_fingerprint(ranker))
    make = partial(lessons_of, sampler, examples, config, progress)
    lessons = made_once(make, Lessons, config, made_of, resume_file)
    student = _beginning_as(model, config)
    how: dict[str, Any] = {"success": success, "resume_file": resume_file, "made_of": made_of}
    averaged = learn(student, lessons, config, progress, **how)
    metrics = tried_out(success, averaged)
    goal = teacher.training.get("config", {}).get("longest_goal", 1)
    told = {"config": {**config.to_dict(), "condition_dropout": 0.0, "longest_goal": goal}}
    made_by = {**teacher.provenance, **versions(), "made_by": "vj2-ddim distill"}
    return Checkpoint(averaged, student.state_dict(), told, made_of[1], metrics, made_by)


def _beginning_as(model: DiffusionModel, config: DistillConfig) -> DiffusionModel:
    """A student with its teacher's weights."""
    schedule = replace(model.schedule, num_inference_steps=config.num_inference_steps)
    parts = model.config, model.action_spec, schedule, model.condition.inputs
    with torch.random.fork_rng(devices=[]):
        student = DiffusionModel(*parts, guidance=False).to(next(model.parameters()).device)
    student.load_state_dict(model.state_dict())
    return student


def distill_to(
    teacher: Checkpoint,
    examples: Examples,
    config: DistillConfig,
    folder: Path,
    progress: Progress = silent,
    ranker: TrainedRanker | None = None,
    success: SuccessMeasure | None = None,
) -> Checkpoint:
    """`distill` into a folder, where a distillation that was cut short goes on.

    It gets `checkpoint.pt` and, of a teacher with a ranker, `ranker.pt`: the condition tokens that
    it reads are the teacher's. Raises what `distill` raises.
    """
    file, resume_file = folder / "checkpoint.pt", folder / "checkpoint.pt.resume"
    folder.mkdir(parents=True, exist_ok=True)
    network = None if ranker is None else ranker.ranker
    how: dict[str, Any] = {"ranker": network, "success": success, "resume_file": resume_file}
    student = distill(teacher, examples, config, progress, **how)
    save_checkpoint(student, file)
    if ranker is not None:
        own = replace(ranker, model_fingerprint=model_fingerprint(student.model))
        save_ranker(own, folder / "ranker.pt")
    forget(resume_file)
    return student


def _require_teacher(
    model: DiffusionModel, config: DistillConfig, ranker: RankerNetwork | None
) -> None:
    if config.kept_share < 1.0 and ranker is None:
        raise ConfigError(
            f"kept_share {config.kept_share} needs the teacher's ranker, which chooses. Give it, "
            f"or keep all by kept_share=1"
        )
    if model.schedule.prediction_type == "epsilon":
        raise ConfigError(
            "the teacher predicts epsilon, and one step out of pure noise cannot be told by it. "
            "Distill a teacher whose prediction_type is v_prediction or sample"
        )
    if config.guidance_scale != 1.0 and not (model.condition.inputs and model.condition.guidance):
        raise ConfigError(
            f"guidance_scale {config.guidance_scale} needs a conditional teacher that was trained "
            f"without its condition as well (condition_dropout). Use guidance_scale=1"
        )
