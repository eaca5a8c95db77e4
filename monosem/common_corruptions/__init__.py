"""The common corruptions of Hendrycks and Dietterich (2019), at five published severities.

`base.py` has what they share: pixels, the two tables of strengths and 8 bits. Then one file for
every group: noise, blur, weather and digital; `textures.py` makes fog, frost and water from noise.
They know images and the hooks of corruptions. They must not know probes,
encoders, stages or Gin files.
"""
