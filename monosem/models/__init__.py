"""Stages that turn inputs into features, and whatever else may stand in an encoder's place.

This folder knows how parts of `data` and `learning` become a trained network, how somebody else's
weights become one, and how a split is encoded. It must not know what features are used for: no
corruption, no probe, no curve. Whether a representation takes the inputs of a dataset, images or
others, it is asked (`incompatibility`). Imports inside it go one way:

    representation < training < pretrain, autoencoder, toy
    autoencoder < checkpoint
    features < baselines
"""
