"""Robustness: how accurate a probe of a representation stays when something goes wrong.

    measurement < curves, selection, common, shift, adversarial

A `Measurement` is a stage that gives `results(artifact)`: numbers of points, which are severities
or names. This folder knows representations, data, corruptions, shifts, attacks and probes. It must
not know tables of several encoders, experiments, Gin files or where files lie, and not assume that
an example is an image unless its class says so.
"""
