#!/bin/sh
# A Varvel that governs nothing: it starts commands as they are, and approves,
# tells and verifies whatever is asked. The demo has to notice.
RES_OPTIONS="timeout:1 attempts:1"
export RES_OPTIONS
for word; do
  shift
  case $word in
    --) exec "$@" ;;
    approvals) echo '[]'; exit ;;
    audit) echo 'root approved delete with a credential'; exit ;;
  esac
done
