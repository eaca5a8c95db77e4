"""What data are: a train and a test split, images, texts, files that are packed, augmentations.

Knows nothing of networks, losses, stages or Gin files: it imports `monosem.core` only.
`dataset.py` is the base for inputs of any kind, and `packed.py` keeps them; `images.py` and
`augment.py` are about images, `text.py` and `tokens.py` about texts. `image_files.py` says what an
image file is, `holdout.py` draws a test split, `counts.py` tells what is in the splits. The
datasets themselves are in `monosem.datasets`.
"""
