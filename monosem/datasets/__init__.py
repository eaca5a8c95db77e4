"""The datasets that can be named: digits, drawn shapes, CIFAR, folders of images, arrays, texts.

They know `monosem.data`, which says what a dataset is, and nothing of networks, stages or Gin
files. A new dataset is one file in this folder: a frozen dataclass that loads two splits.
"""
