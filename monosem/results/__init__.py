"""From rows of numbers to tables, figures and sentences.

A row says which experiment, curve, severity and repeat a number belongs to. From rows this folder
makes curves.csv, the summary in Markdown, intervals and tests, the correlation of monosemanticity
with robustness, the ranking of a search, every figure and the gallery page.

It knows rows, names and arrays only: no dataset, no model, no stage and no checkpoint. Whoever has
a curves.csv can use all of it without the store that the numbers came from.
"""
