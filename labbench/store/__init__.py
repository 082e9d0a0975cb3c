"""The database: the only SQL of labbench.

`schema` says what is in the file, `opening` opens it, `writer` is the only thing that writes, `reader` reads.
Import those modules by name: nothing is loaded for the sake of a shorter path.
"""
