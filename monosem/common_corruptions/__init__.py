"""The common corruptions of Hendrycks and Dietterich (2019), at five published severities.

`base.py` has what they share: pixels, the two tables of strengths and 8 bits. Then one file for
every group: noise and blur; weather and digital are not written yet. They know images and the
hooks of corruptions. They must not know probes, encoders, stages or Gin files.
"""
