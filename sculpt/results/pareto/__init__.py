"""Pareto fronts of one or several studies, queried by objectives and conditions."""

from sculpt.results.pareto.fronts import pareto as pareto
from sculpt.results.pareto.fronts import pareto_document as pareto_document
