"""The networks: `minimal` (the original script's) and `dit` (the default)."""
