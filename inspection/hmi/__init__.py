"""The pages at the line: operator screen, review station, accounts.  A process of its own that reads the record store."""
