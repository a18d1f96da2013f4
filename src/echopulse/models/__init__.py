"""One file = one network and its config."""
