"""Figures and pages for a person: curves, correlations, dimensions and their images, the gallery.

The only folder that draws. It knows the rows, tables and names of `monosem.results`, and arrays: no
dataset, no model, no stage and no checkpoint.
"""
