"""Networks, classical models and their predictions."""
