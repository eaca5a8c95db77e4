"""What is taken along from a finished run: tables for a paper, and one page with everything.

It knows rows, tables, and the files of a run folder: no dataset, no stage and no store. So it works
on any folder that has a curves.csv, wherever that was computed.
"""
