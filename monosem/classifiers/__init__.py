"""Classifiers of kept features: learners that see axes, and learners that cannot.

    kept < trees, neighbours, closed_form < naive_bayes
         solvers < sparse, closed_form < logistic < best_dimensions

A learner is rotation-invariant where it answers the same once all features are multiplied by one
orthogonal matrix (Ng, ICML 2004). Such a learner cannot tell what an axis is worth.
This folder knows probes, corruptions, representations and data. It must not know curves,
experiments, tables or Gin files.
"""
