"""Figures as Vega-Lite charts: described once, drawn in a page or as a picture."""
