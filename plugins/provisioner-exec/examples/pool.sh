#!/bin/sh
# Lends directories of this box as machines, without reading any JSON: all that is needed is in the environment.
# Configuration: {use: exec, program: ./pool.sh, env: {POOL: /var/tmp/pool}}
set -eu
home=$POOL/${ATEX_LEASE-${ATEX_MACHINE-}}

case $ATEX_REQUEST in
reserve)
    mkdir -p "$home"
    printf '%s\n' "$ATEX_MARK" > "$home/mark"
    printf '{"machine": {"id": "%s", "transport": {"kind": "local", "directory": "%s"}, "disposable": true}}\n' \
        "$ATEX_LEASE" "$home"
    ;;
release | abort)
    rm -rf "$home"
    ;;
alive)
    if [ -e "$home/mark" ]; then echo '{"alive": true}'; else echo '{"alive": false}'; fi
    ;;
list)
    printf '{"held": ['
    comma=
    for file in "$POOL"/*/mark; do
        [ -e "$file" ] || continue
        mark=$(cat "$file") name=${file%/mark}
        case $mark in "${ATEX_OWNER:+$ATEX_OWNER/}"*) ;; *) continue ;; esac
        printf '%s{"id": "%s", "mark": "%s"}' "$comma" "${name##*/}" "$mark"
        comma=,
    done
    echo ']}'
    ;;
*)
    echo '{"error": {"kind": "unsupported", "message": "not by this script"}}'
    ;;
esac
