"""Drawing and correcting the labels of a dataset: every save is kept, with who, when and why."""
