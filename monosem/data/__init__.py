"""Where inputs and labels come from: datasets, the files they are read from, and augmentations.

Knows nothing of networks, losses, stages or Gin files: it imports `monosem.core` only.
`dataset.py` is the base for inputs of any kind; everything else here is about images.
A new dataset is one file in this folder: a frozen dataclass that loads two splits.
"""
