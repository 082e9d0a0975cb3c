"""Databases shared with other people and machines: packed runs, changes of a database, and mirrors of them."""
