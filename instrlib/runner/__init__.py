"""What a notebook sees, the execution of notebooks, and the command line."""
