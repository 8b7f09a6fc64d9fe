"""`python -m sculpt` is the same as the command `sculpt`."""

from sculpt.cli import main

main()
