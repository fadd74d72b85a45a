#!/bin/sh
# Make the secure stack's authority, certificate and password, once, in the folder SECRETS:
# readable by the broker (uid 1000), its clients (uid 10001), or all, and nobody else. Runs as root.
set -eu
if [ "${STACK_SECURITY:-plain}" != secure ]; then
  echo "the profile secure is on and STACK_SECURITY is '${STACK_SECURITY:-}'; wanted 'secure', or" \
    "the broker would listen without TLS. Not starting; make stack SECURE=yes sets both" >&2
  exit 2
fi
cd "${SECRETS:-/secrets}"
if [ -e made ]; then
  echo "keeping the secrets that are there; remove the volume for new ones"
  exit 0
fi
umask 077
days=825 # The most that common clients accept of a certificate.
key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# shellcheck disable=SC2086  # The words of $key are meant to be several.
openssl req -x509 $key -days $days -subj "/CN=odradek stack authority" -keyout ca.key -out ca.pem
# shellcheck disable=SC2086
openssl req $key -subj "/CN=kafka" -keyout broker.key -out broker.csr
printf 'subjectAltName=DNS:kafka\nextendedKeyUsage=serverAuth\n' >broker.ext
openssl x509 -req -in broker.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days $days \
  -extfile broker.ext -out broker.crt
cat broker.key broker.crt >broker.pem
# Nobody signs a second certificate with it.
rm -f ca.key ca.srl broker.key broker.csr broker.ext broker.crt

password=$(openssl rand -hex 24)
module=org.apache.kafka.common.security.plain.PlainLoginModule
printf '%s' "$password" >password
printf 'jaas=%s required user_odradek="%s";\n' "$module" "$password" >users.properties
cat >client.properties <<END
security.protocol=SASL_SSL
ssl.truststore.type=PEM
ssl.truststore.location=/etc/kafka/secrets/ca.pem
sasl.mechanism=PLAIN
sasl.jaas.config=$module required username="odradek" password="$password";
END
chmod 444 ca.pem
chmod 400 password broker.pem users.properties client.properties
if [ "$(id -u)" = 0 ]; then
  chown 1000 broker.pem users.properties client.properties
  chown 10001 password
  chmod 755 .
fi
touch made
echo "made an authority, a certificate for the broker, and a password"
