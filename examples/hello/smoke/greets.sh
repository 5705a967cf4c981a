#!/bin/sh
# A smoke test as a program: exit code 0 passes. ALCEDO_URL is the server under test, or the preview route; the preview
# route is taken by requests with the header ALCEDO_HEADER_NAME.
set -eu

answer=$(curl --fail --silent --show-error --max-time 5 \
    ${ALCEDO_HEADER_NAME:+--header "$ALCEDO_HEADER_NAME: $ALCEDO_HEADER_VALUE"} "${ALCEDO_URL%/}/")
case $answer in
Hello*) ;;
*)
    echo "expected a greeting, got: $answer" >&2
    exit 1
    ;;
esac
