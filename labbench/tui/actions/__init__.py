"""Actions of the runs screen: its query, its marks, its table."""
