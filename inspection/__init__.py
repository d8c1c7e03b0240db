"""The line runtime: frames in, verdicts and records out.  Imports none of the other packages and never torch."""
