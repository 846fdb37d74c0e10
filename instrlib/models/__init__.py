"""Networks, classical models and what they predict."""
