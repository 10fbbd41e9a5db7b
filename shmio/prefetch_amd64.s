#include "textflag.h"

// func prefetchRead(p *byte, lines int)
TEXT ·prefetchRead(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), AX
	MOVQ lines+8(FP), CX

read:
	PREFETCHT0 (AX)
	ADDQ       $64, AX
	DECQ       CX
	JGT        read
	RET

// func prefetchWrite(p *byte, lines int)
TEXT ·prefetchWrite(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), AX
	MOVQ lines+8(FP), CX

write:
	BYTE $0x0F; BYTE $0x0D; BYTE $0x08 // PREFETCHW (AX), which the assembler doesn't know; where the processor doesn't, it does nothing
	ADDQ $64, AX
	DECQ CX
	JGT  write
	RET
