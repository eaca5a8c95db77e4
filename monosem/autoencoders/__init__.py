"""Sparse autoencoders: kinds of sparsity, losses, first weights, and what is done for dead latents.

This folder knows modules and tensors: features (n, d) and latents. It must not know encoders,
datasets, stages or Gin files; models/autoencoder.py trains what is built here.
"""
