"""File types that the formats of other programs are made of, decoded without their packages."""
