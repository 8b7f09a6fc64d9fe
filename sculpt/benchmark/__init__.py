"""What a study costs on this machine, beside the loop that a user would write otherwise."""
