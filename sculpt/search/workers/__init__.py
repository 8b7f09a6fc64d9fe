"""Who trains: one worker, several on a machine, and those that Ray and Slurm start."""
