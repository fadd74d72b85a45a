"""The demo holds what it says: the embedded broker first."""
