"""Toy models whose truth is known: data, what is learnt of it, and scores in closed form.

This folder knows features that are drawn from a formula, representations of them, and stages that
measure what theory says of them. It must not know experiments, tables or Gin files.
"""
