"""A study shown to people: as a page, as Markdown, in Optuna's dashboard, as a folder of text.

`content` collects plain data of a report; the modules whose names end in `figure` or `figures`
describe its charts; `page` and `markdown` put text, tables and figures into files.
"""
