"""Looking around and keeping house: what has been run, how two runs differ, what a store holds.

It knows run folders and stores from outside, by their files: tables, records, configs, manifests.
Nothing is computed here, and of stages only the keys are known. `found` finds runs and what they
need, `listing` and `differences` read tables, `upkeep` measures a store and frees parts of it.
"""
