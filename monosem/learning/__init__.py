"""Learning: architectures, losses, optimisers, and the one loop in which everything is trained.

This folder knows modules and tensors. It must not know datasets, metrics, stages or Gin files; a
stage of models/ or evaluation/ brings batches and a loss together here.
"""
