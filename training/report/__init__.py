"""The evaluation of a model for people: one HTML page that opens anywhere, also without a network."""
