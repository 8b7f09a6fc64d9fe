"""Workers that others start: Ray, and Slurm."""
