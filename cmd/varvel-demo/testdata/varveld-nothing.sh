#!/bin/sh
# The daemon of a Varvel that governs nothing.
exec sleep 600
