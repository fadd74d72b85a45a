"""What both programs and the outside agree on: event, score, dead letter, sealed model.

Nothing here knows torch, Kafka or onnxruntime, and nothing here imports trainer or worker.
"""
