#!/bin/sh
# Turns a server that has the artifact unpacked at $ALCEDO_INSTALL_PATH into one that runs it at boot. Run as root while
# the image is baked. The service is enabled, not started: it starts on the servers that are launched from the image.
set -eu

if ! getent passwd hello >/dev/null; then
    useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin hello
fi
printf 'HELLO_VERSION=%s\n' "$ALCEDO_VERSION" >/etc/hello.env
install -m 0644 "$ALCEDO_INSTALL_PATH/deploy/hello.service" /etc/systemd/system/hello.service
systemctl enable hello.service
