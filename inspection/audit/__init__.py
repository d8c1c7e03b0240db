"""Verifies that records, reviews and the evidence ledger are as they were written (`lineside audit`); reads only."""
