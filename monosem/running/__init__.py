"""Running: from a spec to a finished run folder, in this process or as trials of Ray Tune.

    cli -> local.run_experiment  -> Store -> rows -> run_folder.write
    cli -> sweep.run_sweep -> tune.run_trials -> Store -> rows -> sweep_folder.write

Progress and TensorBoard are callbacks that the store is given; they know no run folder. This is the
only folder that knows Ray (tune.py), TensorBoard (tensorboard.py) and the terminal. It knows no
detail of any stage: how something is trained, probed or measured is none of its business.
"""
