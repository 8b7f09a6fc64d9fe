"""A study's report: one page that says what was found, works offline and sends nothing.

`content` collects plain data from the study's storage; the modules whose names end in `figure` or
`figures` draw it; `page` puts text, tables and figures into one file.
"""
