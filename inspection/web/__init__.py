"""What every page of lineside shares: application, security, languages, style.  Extra ``hmi``."""
