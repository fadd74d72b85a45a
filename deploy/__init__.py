"""How the worker is deployed and watched; what of it is code makes files that others read."""
