"""Losses of codes: what a batch of latents costs beside their reconstruction.

This folder knows latents (n, latents), which rows are alike and which belong together. It must not
know autoencoders, encoders, datasets, stages or Gin files; models/autoencoder.py trains with them.
"""
