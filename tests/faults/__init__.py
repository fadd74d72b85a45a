"""What goes wrong around a worker, made to go wrong on real Kafkas."""
