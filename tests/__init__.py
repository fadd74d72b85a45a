"""The tests: they mirror the packages, and start the real components they need."""
