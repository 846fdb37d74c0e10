"""The released model, prediction, and the web page."""
