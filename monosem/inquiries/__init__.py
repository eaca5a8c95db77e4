"""A report: questions of `questions`, the sweeps that answer them, and one page that tells it.

    load < write < run

This folder must not know how a sweep runs, which is in `running`, nor what a question asks.
"""
