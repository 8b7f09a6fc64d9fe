"""Cost of a study on this machine, compared with a plain PyTorch loop."""
