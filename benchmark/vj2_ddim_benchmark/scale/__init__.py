"""SHIM: moved to vj2_ddim_benchmark.timing."""
