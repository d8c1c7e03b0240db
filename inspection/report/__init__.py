"""The quality engineer's report: what the records of a span say, and what they cannot say."""
