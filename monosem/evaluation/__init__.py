"""The evaluation of a representation: its robustness, and how monosemantic it is.

    monosemanticity, reconstruction, dashboard < experiment

An `Experiment` names the stages and makes the table from their artifacts: measurement -> its
`results(artifact)` -> `Row`. This folder knows representations, data, measurements and metrics. It
must not know Gin files, sweeps, the terminal or where files lie, and not assume that an example is
an image.
"""
