"""Chart widgets, their settings, and the reading and caching of their series."""
