"""Studies shared by several notebooks."""
