"""What `make demo` runs: the embedded broker, the shipped events, the player, the live view."""
