"""The alert rules, once, as code: for Prometheus and for Grafana."""
