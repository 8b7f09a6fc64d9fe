"""A study as a folder of small text files: written, recognised, and read like the study itself.

`contents` says what stands in the files, `privacy` what must not.
"""
