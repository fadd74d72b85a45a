#!/usr/bin/env bash
# Make stand-ins for the stack's base images, for machines that reach no registry of images: the
# same names, from Debian's packages, and Kafka from the jars of the embedded broker.
#   make.sh --missing                 say which are not there
#   make.sh FOLDER JAVA_HOME JARS     as root, on Debian, with podman and debootstrap
# JAVA_HOME: a Java; JARS: a folder of Kafka's jars, those of the embedded broker and the artifact
# org.apache.kafka:kafka-tools, for the command lines. Images that are there already are kept.
# Not the real images: other builds of Python, Prometheus and Alertmanager, and a Debian below.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
slim=python:3.11.14-slim-bookworm
full=python:3.11.14-bookworm
kafka=apache/kafka:4.3.1
prometheus=prom/prometheus:v3.5.0
alertmanager=prom/alertmanager:v0.28.1
path=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin

there() { podman image exists "$1"; }
if [ "$1" = --missing ]; then
  for image in $slim $full $kafka $prometheus $alertmanager; do there $image || echo $image; done
  exit
fi
work=$1 java_home=$2 jars=$3
imported() { # ROOT NAME CHANGE...: pack a root file system as an image.
  local root=$1 name=$2 changes=()
  shift 2
  for change in "ENV PATH=$path" "$@"; do changes+=(--change "$change"); done
  tar -C "$root" -c . | podman import --quiet "${changes[@]}" - "$name" >/dev/null
  echo "made a stand-in for $name"
}
copied() { rm -rf "$2" && cp -a "$1" "$2"; }

mkdir -p "$work"
base=$work/base
if [ ! -e "$base.done" ]; then
  rm -rf "$base"
  # The mirror that this machine uses; one of the two places is usually not there.
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    awk '/^URIs:|^deb http/ && !found {print $2; found = 1}' || true)
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates,openssl \
    bookworm "$base" "$mirror" >"$work/debootstrap.log" 2>&1
  ln -s /usr/bin/python3 "$base/usr/local/bin/python"
  rm -f "$base"/usr/lib/python3*/EXTERNALLY-MANAGED # The official image has no such mark.
  rm -rf "$base"/var/cache/apt/archives/*.deb
  touch "$base.done"
fi

there $slim || imported "$base" $slim 'CMD ["python"]'

if ! there $full; then
  copied "$base" "$work/full"
  cp /etc/resolv.conf "$work/full/etc/resolv.conf"
  chroot "$work/full" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends gcc libc6-dev python3-dev >"$work/full.log"
  imported "$work/full" $full 'CMD ["python"]'
fi

if ! there $kafka; then
  copied "$base" "$work/kafka"
  root=$work/kafka
  mkdir -p "$root"/opt/kafka/{bin,libs,config,logs} "$root"/etc/kafka/{docker,secrets} \
    "$root/var/lib/kafka/data" "$root/mnt/shared/config"
  cp -a "$java_home" "$root/opt/java"
  cp "$jars"/*.jar "$root/opt/kafka/libs/"
  install -m 755 "$here/kafka-run.sh" "$root/etc/kafka/docker/run"
  for name in server.properties log4j2.yaml tools-log4j2.yaml; do
    echo "# Nothing but what the environment says." >"$root/etc/kafka/docker/$name"
  done
  tool() { # NAME CLASS: a command line as the real image has it.
    printf '#!/bin/sh\nexec /opt/java/bin/java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 %s "$@"\n' \
      "-cp '/opt/kafka/libs/*' $2" >"$root/opt/kafka/bin/$1"
    chmod 755 "$root/opt/kafka/bin/$1"
  }
  tool kafka-topics.sh org.apache.kafka.tools.TopicCommand
  tool kafka-broker-api-versions.sh org.apache.kafka.tools.BrokerApiVersionsCommand
  chroot "$root" useradd --uid 1000 --create-home appuser
  chroot "$root" chown -R appuser /opt/kafka /etc/kafka /var/lib/kafka /mnt/shared/config
  imported "$root" $kafka 'USER appuser' 'CMD ["/etc/kafka/docker/run"]' 'EXPOSE 9092'
fi

program() { # NAME DEBIAN-PACKAGE IMAGE CHANGE...: an image of one program from Debian's package.
  local name=$1 package=$2 image=$3
  shift 3
  there "$image" && return
  copied "$base" "$work/$name"
  cp /etc/resolv.conf "$work/$name/etc/resolv.conf"
  chroot "$work/$name" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$package" busybox >"$work/$name.log"
  [ "$name" = "$package" ] || ln -sf "/usr/bin/$package" "$work/$name/usr/bin/$name"
  ln -sf /bin/busybox "$work/$name/usr/local/bin/wget"
  chroot "$work/$name" install -d -o nobody -g nogroup "/$name" "/etc/$name"
  imported "$work/$name" "$image" 'USER nobody' "WORKDIR /$name" "ENTRYPOINT [\"/bin/$name\"]" "$@"
}
program prometheus prometheus $prometheus 'EXPOSE 9090' \
  'CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]'
program alertmanager prometheus-alertmanager $alertmanager 'EXPOSE 9093' \
  'CMD ["--config.file=/etc/alertmanager/alertmanager.yml","--storage.path=/alertmanager"]'
