#include "textflag.h"

// func rawClone(trap, a1, a2, a3 uintptr) uintptr
//
// The child runs on the same stack and its calls overwrite the word under the
// frame of the caller, where the return address of the parent lies: the parent
// keeps it in R12 across the system call.
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ	trap+0(FP), AX
	MOVQ	a1+8(FP), DI
	MOVQ	a2+16(FP), SI
	MOVQ	a3+24(FP), DX
	XORL	R10, R10
	XORL	R8, R8
	XORL	R9, R9
	POPQ	R12
	SYSCALL
	PUSHQ	R12
	MOVQ	AX, ret+32(FP)
	RET
