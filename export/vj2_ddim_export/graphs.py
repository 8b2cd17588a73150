"""The ONNX graphs: one denoising step, the condition encoder, and the ranker if there is one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from vj2_ddim_plugin.bundle import RANKER, graph_specs
from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_training.diffusion_model import DiffusionModel
from vj2_ddim_training.ranker.network import RankerNetwork

__all__ = ["export_condition", "export_denoiser", "export_ranker"]

OPSET = 20
TRACED_BATCH = 2  # a batch of 1 would be taken for a constant


class _Denoiser(nn.Module):
    """`(sample, timestep[, condition]) -> model_output`."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.denoiser = model.denoiser

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor | None = None) -> Tensor:
        output: Tensor = self.denoiser(sample, timestep, condition)
        return output


class _Condition(nn.Module):
    """Context arrays, in the order of their names -> condition and null condition tokens."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        if model.condition_encoder is None:
            raise CheckpointError("an unconditional model has no condition encoder to export")
        self.encoder = model.condition_encoder
        self.null_tokens = model.null_condition  # its name must differ from the output's
        self.names = list(model.condition.inputs)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        tokens: Tensor = self.encoder(**dict(zip(self.names, inputs, strict=True)))
        return tokens, self.null_tokens.expand_as(tokens)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Turn off the fused attention path, which cannot be exported, and the exporter's chatter."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], names: list[str], outputs: list[str], path: Path
) -> None:
    """Trace at batch 2 with the dynamo exporter; the first axis of everything is `batch`."""
    batch = torch.export.Dim("batch", min=1)
    shapes: object = tuple({0: batch} for _ in inputs)
    if isinstance(module, _Condition):
        shapes = (shapes,)  # forward takes *inputs
    with _quiet_exporter():
        torch.onnx.export(
            module.eval(),
            inputs,
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes,  # type: ignore[arg-type]
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(path)
    _forget_where_it_was_made(graph)
    onnx.save(graph, path)


def _forget_where_it_was_made(message: Any) -> None:  # noqa: ANN401
    """Clear stack traces and other notes, which hold the exporting machine's paths."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _forget_where_it_was_made(inner)


def export_denoiser(model: DiffusionModel, path: Path) -> None:
    """Write `denoiser.onnx`: sample `[batch, M, C]`, timestep `[batch]` int64, condition
    `[batch, S, W]` (conditional models) -> model_output `[batch, M, C]`.
    """
    sample = torch.randn(TRACED_BATCH, *model.action_spec.diffused_shape)
    inputs = [sample, torch.tensor([3, 500])]
    names = ["sample", "timestep"]
    condition = model.condition
    if condition.inputs:
        inputs.append(torch.randn(TRACED_BATCH, condition.num_tokens, condition.width))
        names.append("condition")
    _export(_Denoiser(model), tuple(inputs), names, ["model_output"], path)


def export_condition(model: DiffusionModel, path: Path) -> None:
    """Write `condition.onnx`: the context -> condition, null_condition, each `[batch, S, W]`."""
    inputs = tuple(torch.rand(TRACED_BATCH, *shape) for shape in model.condition.inputs.values())
    names = list(model.condition.inputs)
    _export(_Condition(model), inputs, names, ["condition", "null_condition"], path)


def export_ranker(ranker: RankerNetwork, model: DiffusionModel, path: Path) -> None:
    """Write `ranker.onnx`: candidates `[batch, M, C]`, condition `[batch, S, W]` -> predicted_cost
    `[batch]`.
    """
    inputs = graph_specs(model.action_spec, model.condition)[RANKER].inputs
    traced = tuple(torch.randn(TRACED_BATCH, *shape) for shape in inputs.values())
    _export(ranker, traced, list(inputs), ["predicted_cost"], path)
