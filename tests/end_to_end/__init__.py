"""The real programs in processes of their own, on a real Kafka."""
