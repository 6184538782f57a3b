#!/bin/sh
# Capture every sample anew: sh capture.sh [NAME...], in a copy of this folder under /tmp/demo so that paths stay short.
# Needs strace, ltrace, gcc and, for run_32bit, gcc-multilib.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rm -rf /tmp/demo && mkdir /tmp/demo && cp "$here"/snapshot.h /tmp/demo
calls=%memory,%process,open,openat,close,prlimit64,setrlimit,prctl,shmget

capture() {
    name=$1; options=$2; shift 2
    mkdir "/tmp/demo/$name" && cp "$here/$name/prog.c" "/tmp/demo/$name" && cd "/tmp/demo/$name"
    # shellcheck disable=SC2086
    gcc -O0 -fno-builtin -pthread $options -o prog prog.c
    env -i PATH=/usr/bin:/bin "$@" >/dev/null
    rm prog && rm -f "$here/$name"/maps_*.txt && cp maps_*.txt ./*trace.log* "$here/$name"
}

for name in ${*:-plain blocked_break threads fork_exec run_32bit ltrace}; do
    case $name in
    ltrace) capture ltrace -Wl,-z,lazy ltrace -f -S -e malloc+free+calloc+realloc@MAIN -o ltrace.log ./prog ;;
    run_32bit) capture run_32bit -m32 strace -f -y -ttt -e trace=$calls -o strace.log ./prog ;;
    *) capture "$name" "" strace -f -y -ttt -e trace=$calls -o strace.log ./prog ;;
    esac
done
rm -rf /tmp/demo
