from hmi_site import browser, chromium, seen, shift_site, site

__all__ = ["browser", "chromium", "seen", "shift_site", "site"]
