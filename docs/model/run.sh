#!/bin/bash
# run.sh - runs lease-log.pml as specified and with each rule broken; needs spin, gcc
cd "$(dirname "$0")"; here=$PWD;
for f in "" NO_VERIFY OLD_ENTRY FROM_RECEIPT NO_NEW_WAIT NO_MARGIN SUSPEND REPLY_FIRST NODE_LEASE; do
  d=$(mktemp -d)
  ( cd $d; spin -a ${f:+-D$f} $here/lease-log.pml >/dev/null 2>&1; gcc -O2 -DSAFETY -DNOREDUCE -DMEMLIM=8000 -o pan pan.c 2>/dev/null
    nice ./pan -m10000 -w26 >out.txt 2>&1
    printf "lease-log %-14s %s, states %s\n" "${f:-as-specified}" "$(grep -o 'errors: [0-9]*' out.txt)" "$(grep 'states, stored' out.txt | awk '{print $1}')" )
  rm -rf $d
done
