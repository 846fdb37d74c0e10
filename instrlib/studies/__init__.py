"""Studies that several notebooks share."""
