"""Planning time at VJ2-GUI's real scale: what a predictor of hundreds of millions costs a plan."""
