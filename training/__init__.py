"""Train, evaluate and export detectors.  Needs the ``train`` extra (torch)."""
