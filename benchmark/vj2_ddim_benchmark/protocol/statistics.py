"""SHIM: moved to vj2_ddim_benchmark.report.summary."""

from vj2_ddim_benchmark.report.summary import PairedTest, mcnemar, percentile, wilson_interval

__all__ = ["PairedTest", "mcnemar", "percentile", "wilson_interval"]
