"""The spine: what a spec may hold, what its key is, and the store that maps keys to artifacts.

It knows parts, stages, files and the device. It must not know any particular part or stage, no
dataset, no model, no Gin and no Ray: everything else stands on it.
"""
