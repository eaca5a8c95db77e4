"""From rows of numbers to tables, figures and sentences.

A row says which experiment, curve, severity and repeat a number belongs to. From rows this folder
makes curves.csv, the summary in Markdown, intervals and tests, the correlation of monosemanticity
with robustness and the ranking of a search. `monosem.figures` draws them.

It knows rows, names and arrays only: no dataset, no model, no stage and no checkpoint. Whoever has
a curves.csv can use all of it without the store that the numbers came from.
"""
