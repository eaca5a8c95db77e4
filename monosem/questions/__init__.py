"""Questions that are written down before anything runs, and the numbers that answer them.

    question < differences, axis_worth, correlations < answers

A question says what the claim predicts; its numbers come from the tables of sweeps. This folder
knows tables of results and their statistics. It must not know stages, Gin files or how sweeps run.
"""
