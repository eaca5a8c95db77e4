"""What data are: a train and a test split, images, files that are packed, augmentations.

Knows nothing of networks, losses, stages or Gin files: it imports `monosem.core` only.
`dataset.py` is the base for inputs of any kind; everything else here is about images. The datasets
themselves are in `monosem.datasets`.
"""
