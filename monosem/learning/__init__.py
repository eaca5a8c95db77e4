"""Learning: architectures, losses, optimisers, and the loop that trains networks and autoencoders.

Linear probes have a loop of their own: ProbeTrainer, in probes/batched_probes.py.
This folder knows modules and tensors. It must not know datasets, metrics, stages or Gin files; a
stage of models/, probes/ or evaluation/ brings batches and a loss together here.
"""
