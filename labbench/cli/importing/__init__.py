"""The command `import`: runs of other databases and other programs."""
