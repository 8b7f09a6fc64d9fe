"""Archives: a study as a folder of small text files, written, and read like the study itself."""
