"""What each of our nets has to learn: its crops, its targets, its losses.  The loop is in ``training/train.py``."""
