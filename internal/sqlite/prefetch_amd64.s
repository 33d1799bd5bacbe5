#include "textflag.h"

// func prefetch(lines *uintptr, n int)
TEXT ·prefetch(SB), NOSPLIT, $0-16
	MOVQ lines+0(FP), SI
	MOVQ n+8(FP), CX
next:
	TESTQ CX, CX
	JLE   done
	MOVQ  (SI), AX
	PREFETCHT0 (AX)
	ADDQ  $8, SI
	DECQ  CX
	JMP   next
done:
	RET
