#!/bin/sh
# Make the stack's topics, those that are not there: make-topics.sh TOPIC...
set -eu
set_up=/dev/null
if [ "$STACK_SECURITY" = secure ]; then set_up=/etc/kafka/secrets/client.properties; fi
for topic in "$@"; do
  /opt/kafka/bin/kafka-topics.sh --bootstrap-server kafka:9092 --command-config "$set_up" \
    --create --if-not-exists --topic "$topic" --partitions 4 --replication-factor 1
done
