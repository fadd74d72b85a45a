"""Tests of how a data file holds events."""
