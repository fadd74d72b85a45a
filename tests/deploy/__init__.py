"""Tests of the compose file and the images' recipes, as far as they go without an engine."""
