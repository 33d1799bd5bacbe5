#include "textflag.h"

// The frame is what the C code may use: Go's runtime keeps as much for the same
// call, because some kernels were built to touch the page below their stack.
//
// func callVDSO(fn uintptr, clock int32, ts *unix.Timespec) int32
TEXT ·callVDSO(SB), 0, $8192-28
	MOVQ fn+0(FP), AX
	MOVL clock+8(FP), DI
	MOVQ ts+16(FP), SI
	MOVQ SP, R13 // kept by the called
	ADDQ $8176, SP // the frame is below
	ANDQ $~15, SP
	CALL AX
	MOVQ R13, SP
	MOVL AX, ret+24(FP)
	RET
