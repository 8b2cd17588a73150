"""The trained parts of a benchmark: those that are shipped, and how they are made anew."""

from vj2_ddim_benchmark.assets.build import build_assets
from vj2_ddim_benchmark.assets.files import Assets, shipped_assets
from vj2_ddim_benchmark.assets.settings import AssetSettings

__all__ = ["AssetSettings", "Assets", "build_assets", "shipped_assets"]
