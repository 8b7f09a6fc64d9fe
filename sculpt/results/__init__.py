"""Results of a study, read from its storage: records, ranking, Pareto front, tables.

Nothing here needs the process that ran the study, or changes what it left.
"""
