#include "textflag.h"

// func rawClone(trap, a1, a2, a3 uintptr) uintptr
//
// The return address is in R30 and the function has no frame: nothing of the
// parent lies where the child, which runs on the same stack, could overwrite it.
TEXT ·rawClone(SB),NOSPLIT|NOFRAME,$0-40
	MOVD	trap+0(FP), R8
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	ZR, R3
	MOVD	ZR, R4
	MOVD	ZR, R5
	SVC
	MOVD	R0, ret+32(FP)
	RET
