"""Tables, report, cards and README, read from published results."""
