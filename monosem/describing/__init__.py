"""What Gin can bind, in words: every class by kind, with its fields, ranges and defaults.

All of it is taken from docstrings and annotations, so nothing is said twice. `monosem --describe`
prints it, and `python -m monosem.describing` writes it into docs/parts.md. It knows the classes
that are registered, and neither bindings nor how anything is computed.
"""
