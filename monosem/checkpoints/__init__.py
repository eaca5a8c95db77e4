"""Somebody else's weights: read from their files without running what is in them, then matched.

    safe_load < weights, matching

This folder knows kinds of files, pickles, and how solo-learn, the paper's authors and torchvision
name tensors. It must not know networks, stages or datasets: `models/checkpoint.py` makes an encoder
of what is read here. It is the one place where a file may try to run code, and is refused.
"""
