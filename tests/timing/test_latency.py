"""The latency measurement times both samplers and counts what it says it counts."""

import json
from pathlib import Path

import numpy as np
import torch
from builders.bundles import make_bundle

from vj2_ddim_benchmark.timing.latency import LatencySettings, measure_latency

RECORDED = Path(__file__).parents[2] / "benchmark" / "results" / "latency.json"


def test_both_samplers_are_timed(tmp_path):
    before = torch.get_num_threads()
    try:
        bundle = make_bundle(tmp_path / "bundle", conditional=False)
        settings = LatencySettings(num_plans=3, num_inference_steps=2, threads=1)
        measured = measure_latency(bundle, settings)
    finally:
        torch.set_num_threads(before)
    for name in ("plugin", "original"):
        assert 0 < measured[name]["p50_ms"] <= measured[name]["p95_ms"]
    ratio = measured["original"]["p50_ms"] / measured["plugin"]["p50_ms"]
    np.testing.assert_allclose(measured["ratio_p50"], ratio)
    assert measured["overhead"] >= 1.0
    assert measured["num_plans"] == 3
    assert measured.keys() == json.loads(RECORDED.read_text()).keys()
    assert measured["environment"]["torch_threads"] == 1
