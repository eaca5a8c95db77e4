"""Stages that turn inputs into features, and everything else that can stand in for an encoder.

This folder knows how parts of `data` and `learning` become a trained network, how somebody else's
weights become one, and how a split is encoded. It must not know what features are used for: no
corruption, no probe, no curve. A representation says itself which datasets it cannot take
(`incompatibility`). Imports inside it go one way:

    representation < training < pretrain, autoencoder
    autoencoder < checkpoint
    features < fitted < baselines
"""
