#!/bin/sh
# The entry point of the stand-in for apache/kafka: the variables become properties and the folder
# is formatted by the class of Kafka itself that the official image uses.
set -euf # No globbing: Java expands the class path itself.
java="/opt/java/bin/java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp /opt/kafka/libs/*"
export CLUSTER_ID="${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}"
# Of a folder that it has formatted before, it complains.
said=$($java kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
  --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1) ||
  case $said in
    *"already formatted"*) ;;
    *) echo "$said" >&2 && exit 1 ;;
  esac
exec $java ${KAFKA_HEAP_OPTS:--Xmx512m} -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
  -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info kafka.Kafka \
  /opt/kafka/config/server.properties
