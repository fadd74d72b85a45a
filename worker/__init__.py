"""The long-running side: read events from Kafka, score them, write scores and verdicts back."""
