"""Somebody else's weights: read from their files without running what is in them, then matched.

    safe_load < weights, matching < layouts, saelens_config < saelens

This folder knows kinds of files, pickles, and how solo-learn, the paper's authors, torchvision and
SAELens name tensors. It must not know stages or datasets, nor networks other than autoencoders:
`models/checkpoint.py` makes an encoder of what is read here. It is the one place where a file may
try to run code, and is refused.
"""
