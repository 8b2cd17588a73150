"""What a plan costs: against the original's sampler, under pressure, at VJ2-GUI's scale."""
