"""Maintenance of a database: edits, health checks, merge, backup."""
