"""Networks that somebody else has designed, and most often trained, as representations.

This folder knows libraries of networks (timm, torchvision), where they keep published weights, what
they want images to look like, and how one vector is made of what a layer gives. A library is
imported where one of its networks is asked for. It must not know what features are used for: no
corruption, no probe, no curve. Imports inside it go one way:

    image_inputs, layers, weight_sources < image_network < timm_models, torchvision_models
"""
