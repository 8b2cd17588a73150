"""SHIM: moved to vj2_ddim_plugin.bundle (RANKER, graph_specs) and vj2_ddim_plugin.model."""

from vj2_ddim_plugin.bundle import RANKER, graph_specs
from vj2_ddim_plugin.model import CostPredictor as Ranker
from vj2_ddim_plugin.model import ranker_of
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec

__all__ = ["RANKER", "Ranker", "ranker_inputs", "ranker_of"]


def ranker_inputs(spec: ActionSpec, condition: ConditionSpec) -> dict[str, tuple[int, ...]]:
    """The shape of each input of `ranker.onnx`."""
    return dict(graph_specs(spec, condition)[RANKER].inputs)
