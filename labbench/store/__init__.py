"""SQLite database of runs; all SQL of labbench is in this package.

`schema` defines the tables, `connection` opens the file, `WritableDatabase` and its subclasses write, `Reader` reads.
Import the modules by name: the package itself imports nothing.
"""
