"""The dashboards, as code; what Grafana reads is made from it."""
