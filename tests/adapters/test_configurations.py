"""Every configuration that the hosts publish, with our planner put into it: taken, and one warning.

The names of settings and their values are the hosts' (see docs/how-to/hosts.md for the commits).
"""

import sys
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from builders.adapters import DINOWMRig, JEPAWMsRig, gaussian_optimizer
from builders.bundles import make_bundle

from vj2_ddim_plugin.adapters.stable_worldmodel import StableWorldModelSolver
from vj2_ddim_plugin.adapters.vj2_gui import VJ2GUIPlanner
from vj2_ddim_plugin.errors import BundleError

OURS = {"horizon", "num_act_stepped", "iterations", "max_norms", "max_norm_dims"}
OURS |= {"decode_each_iteration", "batch_size", "device", "seed", "callbacks", "cost"}

CEM = {"topk": 30, "num_samples": 300, "var_scale": 1, "opt_steps": 30, "eval_every": 1}
GD = {"action_noise": 0.003, "sample_type": "randn", "lr": 1, "opt_steps": 1000, "eval_every": 10}
DINO_WM = {
    "cem.yaml": {"horizon": 4, **CEM, "name": "cem"},
    "gd.yaml": {"horizon": 4, **GD, "name": "gd"},
    "mpc_cem.yaml": {"horizon": 4, **CEM, "target": "planning.cem.CEMPlanner"},
    "mpc_gd.yaml": {"horizon": 4, **GD, "target": "planning.gd.GDPlanner"},
}

OBJECTIVE = {"objective_type": "L2", "sum_all_diffs": False, "alpha": 0.1}
ALL = {"horizon": 4, "num_act_stepped": 4, "repeat_actskip": False, "iterations": 15}
ALL |= {"decode_each_iteration": True, "distribute_planner": False, "planning_objective": OBJECTIVE}
SAMPLES = {"num_samples": 300, "num_elites": 10}
DESCENT = {"action_noise": 0.003, "sample_type": "randn", "lr": 1, "var_scale": 1.0}
ADAM = {"adam_betas": [0.9, 0.995], "adam_eps": 1e-8}
MOMENTA = {"momentum_mean": 0.0, "momentum_std": 0.0}
LIMITS = {"max_norms": [0.1, 0.75], "max_norm_dims": [[0, 1, 2], [3]]}
JEPA_WMS = {
    "cem": {**ALL, **SAMPLES, **MOMENTA, "var_scale": 1.0},
    "cem with limits": {**ALL, **SAMPLES, **MOMENTA, **LIMITS, "var_scale": 0.1},
    "nevergrad": {**ALL, **SAMPLES, "optimizer_name": "NGOpt"},
    "nevergrad with limits": {**ALL, **SAMPLES, **LIMITS, "optimizer_name": "NGOpt"},
    "gd": {**ALL, **DESCENT},
    "gd with limits": {**ALL, **DESCENT, **LIMITS},
    "adam": {**ALL, **DESCENT, **ADAM},
    "mppi": {**ALL, **SAMPLES, "temperature": 0.005, "max_std": 2, "min_std": 0.05},
}

MANY = {"n_steps": 30, "num_samples": 300, "var_scale": 1.0, "batch_size": 1, "seed": 42}
STABLE_WORLDMODEL = {
    "cem.yaml": {**MANY, "topk": 30, "device": "cpu"},
    "adam.yaml": {
        **{"n_steps": 30, "batch_size": 1, "num_samples": 100, "action_noise": 0, "seed": 42},
        **{"optimizer_cls": torch.optim.AdamW, "optimizer_kwargs": {"lr": 0.1}, "device": "cpu"},
    },
    "ICEMSolver": {
        **{**MANY, "topk": 30, "noise_beta": 2.0, "alpha": 0.1, "n_elite_keep": 5},
        **{"return_mean": True},
    },
    "MPPISolver": {**MANY, "topk": 30, "temperature": 0.5},
    "GradientSolver": {**MANY, "grad_clip": 1.0, "callbacks": []},
    "LagrangianSolver": {
        **{**MANY, "n_outer_steps": 5, "rho_init": 1.0, "rho_max": 1e4, "rho_scale": 2.0},
        **{"persist_multipliers": True},
    },
    "PGDSolver": {**MANY, "action_noise": 0.0},
    "PredictiveSamplingSolver": {"num_samples": 300, "noise_scale": 1.0, "batch_size": 1},
    "CategoricalCEMSolver": {"n_steps": 30, "topk": 30, "smoothing": 0.1, "alpha": 0.1},
}


def rows(host, configurations):
    return [
        pytest.param(host, given, id=f"{host} {name}") for name, given in configurations.items()
    ]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("configurations") / "bundle", conditional=False)


@pytest.mark.parametrize(
    ("host", "given"),
    [
        *rows("DINO-WM", DINO_WM),
        *rows("jepa-wms", JEPA_WMS),
        *rows("stable-worldmodel", STABLE_WORLDMODEL),
    ],
)
def test_it_is_taken_as_it_is_and_what_means_nothing_is_named_once(host, given, bundle, caplog):
    if host == "stable-worldmodel":
        cost = SimpleNamespace(get_cost=None)
        made = StableWorldModelSolver(bundle, cost=cost, provider="cpu", num_threads=1, **given)
    else:
        rig = DINOWMRig() if host == "DINO-WM" else JEPAWMsRig()
        made = rig.make(gaussian_optimizer(rig.spec), **given)
        rig.plan(made)
    assert made.optimizer.settings.temperature == 1.0  # MPPI's is not ours
    (line,) = (record for record in caplog.records if "does not use" in record.message)
    assert line.levelname == "WARNING"
    names = ", ".join(sorted(set(given) - OURS))
    assert f"does not use {names}: settings of the planner that it replaces" in line.message
    assert "settings={...}" in line.message


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.5), ("num_candidates", 2)])
def test_our_own_are_in_settings(bundle, name, value, caplog):
    own, cost = {name: value}, SimpleNamespace(get_cost=None)
    common = {"provider": "cpu", "num_threads": 1}
    made = StableWorldModelSolver(bundle, cost=cost, settings=own, **common)
    assert getattr(made.optimizer.settings, name) == value
    assert not caplog.records


class Config:
    """Hydra's, where its `main` has changed the folder."""

    started = ""

    @classmethod
    def initialized(cls):
        return bool(cls.started)

    @classmethod
    def get(cls):
        return SimpleNamespace(runtime=SimpleNamespace(cwd=cls.started))


def test_a_relative_path_starts_where_the_program_did(bundle, tmp_path, monkeypatch):
    module, settings = SimpleNamespace(HydraConfig=Config), {"provider": "cpu", "num_threads": 1}
    monkeypatch.chdir(tmp_path)  # as Hydra does
    monkeypatch.setattr(Config, "started", str(bundle.parent))
    with mock.patch.dict(sys.modules, {"hydra.core.hydra_config": module}):
        VJ2GUIPlanner(bundle.name, **settings)
        StableWorldModelSolver(bundle.name, cost=SimpleNamespace(get_cost=None), **settings)
        with pytest.raises(BundleError, match=str(bundle.parent / "nowhere")):
            VJ2GUIPlanner("nowhere", **settings)
        (tmp_path / "here").symlink_to(bundle)
        VJ2GUIPlanner("here", **settings)  # what is there is taken
        monkeypatch.setattr(Config, "started", "")
        with pytest.raises(BundleError):
            VJ2GUIPlanner(bundle.name, **settings)
