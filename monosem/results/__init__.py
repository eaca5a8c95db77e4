"""What is read from results: rows of numbers in, tables, figures and sentences out.

A row says of which experiment, curve, severity and repeat a number is. From rows this folder makes
curves.csv, the summary in Markdown, intervals and tests, the correlation of monosemanticity with
robustness, the ranking of a search, every figure and the gallery page.

It knows rows, names and arrays only: no dataset, no model, no stage and no checkpoint. Whoever has
a curves.csv can use all of it without the store that the numbers came from.
"""
