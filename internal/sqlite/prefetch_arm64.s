#include "textflag.h"

// func prefetch(lines *uintptr, n int)
TEXT ·prefetch(SB), NOSPLIT, $0-16
	MOVD lines+0(FP), R0
	MOVD n+8(FP), R1
next:
	CMP  $0, R1
	BLE  done
	MOVD (R0), R2
	PRFM (R2), PLDL1KEEP
	ADD  $8, R0
	SUB  $1, R1
	B    next
done:
	RET
