"""stable-worldmodel's TwoRoom: its world, its world model, its evaluation; its solvers and ours."""
