"""Checkpoint to bundle: write the graphs, prove them, and only then put the folder in place.

The graphs are one denoising step, the condition encoder, and the ranker if there is one.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import vj2_ddim_plugin
from vj2_ddim_export import TOLERANCE
from vj2_ddim_export.parity import BATCHES, NUM_INFERENCE_STEPS, measure_parity
from vj2_ddim_plugin import bundle
from vj2_ddim_plugin.bundle import (
    CONDITION,
    DENOISER,
    MANIFEST,
    RANKER,
    GraphSpec,
    Parity,
    graph_specs,
)
from vj2_ddim_plugin.errors import CheckpointError
from vj2_ddim_plugin.files import atomic_path, sha256_of
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx.session import onnxruntime
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint
from vj2_ddim_training.condition_encoders import FoldedLatentEncoder, LatentEncoder
from vj2_ddim_training.data.gesture_files import require_replaceable
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.ranker.network import (
    RankedSampler,
    TrainedRanker,
    load_ranker,
)
from vj2_ddim_training.saved import one_line

__all__ = ["export_bundle"]

OPSET = 20
LARGE = 256  # numbers in weights that are worth halving
TRACED_BATCH = 2  # a batch of 1 would be taken for a constant


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    nhead: int | None = None,
    ranker: Path | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    overwrite: bool = False,
    half_weights: bool = False,
) -> Parity:
    """Export a checkpoint, ours or the original script's.

    Args:
        checkpoint: The file.
        out: The bundle's folder.
        nhead: The head count, for the original script's checkpoints.
        ranker: `ranker.pt`, trained for this checkpoint's model, or None.
        tolerance: Largest relative error of the whole sampling loop.
        seed: Of the inputs of the parity gate.
        overwrite: Replace a bundle that is there; a folder that holds anything else is not.
        half_weights: Store weights in half precision, in half the bytes. They are float32 again
            before anything is computed, so plans take as long; the rounding is in the parity, of
            which `tolerance` must allow more.

    Returns:
        The measured parity, which is also in `bundle.json`.

    Raises:
        CheckpointError: A file cannot be opened, or the two do not belong together.
        ConfigError: `out` holds something that would be lost; `tolerance` or `seed` is no such.
        ParityError: The bundle does not agree with the checkpoint; nothing is written.
    """
    unmeasured = Parity(0.0, tolerance, BATCHES, NUM_INFERENCE_STEPS, seed)
    require_replaceable(out, (MANIFEST, DENOISER, CONDITION, RANKER), overwrite)
    loaded = load_checkpoint(checkpoint, nhead)
    model = loaded.model
    trained = None if ranker is None else load_ranker(ranker, model)
    with atomic_path(out, folder=True) as folder:
        reference = _write_graphs(model, trained, folder, half_weights)
        return _prove(
            folder, reference, _provenance(loaded, checkpoint, trained, ranker), unmeasured
        )


def _prove(
    folder: Path, reference: TorchSampler, provenance: Mapping[str, Any], unmeasured: Parity
) -> Parity:
    """Compare the bundle, read as the plugin reads it, and write what was found."""
    write = partial(
        bundle.write_manifest,
        folder,
        action_spec=reference.action_spec,
        schedule=reference.schedule,
        condition=reference.condition,
        provenance=provenance,
    )
    ranked = isinstance(reference, RankedSampler)
    write(parity=replace(unmeasured, ranker_error=0.0 if ranked else None))
    with BundleModel(bundle.read_bundle(folder), "cpu") as exported:
        parity = measure_parity(exported, reference, unmeasured.tolerance, unmeasured.seed)
    write(parity=parity)
    return parity


def _write_graphs(
    model: DiffusionModel, trained: TrainedRanker | None, folder: Path, half_weights: bool = False
) -> TorchSampler:
    """Write every graph of a model; returns what they must agree with."""
    modules = {DENOISER: model.denoiser}
    if model.condition.inputs:
        modules[CONDITION] = _Condition(model)
    if trained is not None:
        modules[RANKER] = trained.ranker
    specs = graph_specs(model.action_spec, model.condition)
    for name, module in modules.items():
        _export(module, specs[name], folder / name)
        if half_weights:
            _halve_weights(folder / name)
    return TorchSampler(model) if trained is None else RankedSampler(model, trained.ranker)


def _provenance(
    loaded: Checkpoint, checkpoint: Path, trained: TrainedRanker | None, ranker: Path | None
) -> dict[str, Any]:
    """Where the weights came from, and what exported them."""
    versions = {"torch": str(torch.__version__), "onnx": onnx.__version__}
    provenance: dict[str, Any] = {
        **loaded.provenance,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256_of(checkpoint),
        "data_fingerprint": loaded.data_fingerprint,
        "architecture": loaded.model.config.to_dict(),
        "exported_by": f"vj2-ddim-plugin {vj2_ddim_plugin.__version__}",
        "export_versions": versions | {"onnxruntime": onnxruntime.__version__, "opset": OPSET},
    }
    if trained is not None and ranker is not None:
        provenance["ranker"] = {
            **trained.provenance,
            "file": ranker.name,
            "file_sha256": sha256_of(ranker),
            "data_fingerprint": trained.data_fingerprint,
            "config": trained.ranker.config.to_dict(),
            "metrics": dict(trained.metrics),
        }
    return provenance


class _Condition(nn.Module):
    """Context arrays, in the order of their names -> condition and null condition tokens."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        if model.condition_encoder is None:
            raise CheckpointError("an unconditional model has no condition encoder to export")
        encoder = model.condition_encoder
        self.encoder = (
            FoldedLatentEncoder(encoder) if isinstance(encoder, LatentEncoder) else encoder
        )
        self.null_tokens = model.null_condition  # its name must differ from the output's
        self.names = list(model.condition.inputs)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        tokens: Tensor = self.encoder(**dict(zip(self.names, inputs, strict=True)))
        return tokens, self.null_tokens.expand_as(tokens)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Turn off the fused attention path, which cannot be exported, and the exporter's chatter."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for logger, level in levels.items():
            logger.setLevel(level)


def _export(module: nn.Module, spec: GraphSpec, path: Path) -> None:
    """Trace at batch 2 with the dynamo exporter; the first axis of everything is `batch`."""
    inputs = {name: torch.rand(TRACED_BATCH, *shape) for name, shape in spec.inputs.items()}
    if "timestep" in inputs:
        inputs["timestep"] = torch.tensor([3, 500])
    shapes: Any = tuple({0: "batch"} for _ in inputs)
    arguments: Any = tuple(inputs.values())
    if isinstance(module, _Condition):  # its forward takes them as one
        shapes, arguments = (shapes,), (arguments,)
    try:
        with _quiet_exporter():
            torch.onnx.export(
                module.eval(), arguments, str(path), input_names=list(inputs),
                output_names=list(spec.outputs),
                dynamic_shapes=shapes, opset_version=OPSET,
                dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter's own, which fill pages
        raise CheckpointError(f"{path.name} cannot be exported: {one_line(error)}") from error
    graph = onnx.load(path)
    _forget_where_it_was_made(graph)
    onnx.save(graph, path)


def _halve_weights(path: Path) -> None:
    """Store large float32 weights in half precision, with a node that makes them float32 again.

    ONNX Runtime does that once, while it loads the graph.
    """
    model = onnx.load(path)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT or prod(weight.dims) < LARGE:
            continue
        name, values = weight.name, onnx.numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.isfinite(values).all() and not np.isfinite(halves).all():
            raise CheckpointError(
                f"{path.name}: the weights {name!r} reach {np.abs(values).max():.3g}, which half "
                f"precision cannot hold. Export without half_weights"
            )
        weight.CopyFrom(onnx.numpy_helper.from_array(halves, f"{name}_half"))
        casts.append(
            onnx.helper.make_node("Cast", [weight.name], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def _forget_where_it_was_made(message: Any) -> None:  # noqa: ANN401
    """Clear stack traces and other notes, which hold the exporting machine's paths."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                _forget_where_it_was_made(inner)
