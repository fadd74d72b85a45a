"""The worker on Kubernetes: manifests, and what makes the one among them that is generated."""
