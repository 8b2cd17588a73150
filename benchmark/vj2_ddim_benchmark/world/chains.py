"""SHIM: moved to `vj2_ddim_benchmark.world.problems`."""

from vj2_ddim_benchmark.world.problems import LENGTHS, Chains, assign_lengths, chain_problems

__all__ = ["LENGTHS", "Chains", "assign_lengths", "chain_problems"]
