"""Workers: they run trials in this process, or in several of this machine."""
