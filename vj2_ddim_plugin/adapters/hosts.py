"""The hosts that this package has adapters for; the entry points of `pyproject.toml` lead here."""

from __future__ import annotations

from vj2_ddim_plugin.adapters.registry import Adapter

__all__ = ["DINO_WM", "JEPA_WMS", "STABLE_WORLDMODEL", "VJ2_GUI", "VJEPA2"]

VJ2_GUI = Adapter(
    host="VJ2-GUI",
    replaces="gradient descent through its predictor",
    units="screen: x, y in [0, 1], press 0 or 1",
    usage="VJ2GUIPlanner('bundle').plan(z_context, z_goal, predictor, previous)",
    target="vj2_ddim_plugin.adapters.vj2_gui:VJ2GUIPlanner",
)
STABLE_WORLDMODEL = Adapter(
    host="stable-worldmodel",
    replaces="its solvers (CEM, iCEM, MPPI, gradient)",
    units="normalized, as its policy does",
    usage="_target_: vj2_ddim_plugin.adapters.stable_worldmodel.StableWorldModelSolver",
    target="vj2_ddim_plugin.adapters.stable_worldmodel:StableWorldModelSolver",
    package="stable_worldmodel",
)
DINO_WM = Adapter(
    host="DINO-WM",
    replaces="planning.cem.CEMPlanner, planning.gd.GDPlanner",
    units="normalized by its preprocessor, frameskip actions a step",
    usage="_target_: vj2_ddim_plugin.adapters.dino_wm.DINOWMPlanner",
    target="vj2_ddim_plugin.adapters.dino_wm:DINOWMPlanner",
)
JEPA_WMS = Adapter(
    host="jepa-wms",
    replaces="the planner of its GC_Agent",
    units="normalized, frameskip actions a step",
    usage="agent.planner = JEPAWMsPlanner('bundle', agent.model.unroll, agent.model.action_dim)",
    target="vj2_ddim_plugin.adapters.jepa_wms:JEPAWMsPlanner",
)
VJEPA2 = Adapter(
    host="V-JEPA 2",
    replaces="cem of notebooks/utils/mpc_utils.py",
    units="robot: metres, radians, gripper",
    usage="world_model_wrapper.cem = VJEPA2CEM('bundle')",
    target="vj2_ddim_plugin.adapters.vjepa2:VJEPA2CEM",
)
