"""SHIM: moved to vj2_ddim_benchmark.race and vj2_ddim_benchmark.report."""
