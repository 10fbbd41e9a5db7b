#include "textflag.h"

// func prefetchRead(p *byte, lines int)
TEXT ·prefetchRead(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), AX
	MOVQ lines+8(FP), CX
	PREFETCHT1 (AX)
	PREFETCHT1 64(AX)
	PREFETCHT1 128(AX)
	PREFETCHT1 192(AX)
	PREFETCHT1 256(AX)
	CMPQ CX, $5
	JLE  done
	PREFETCHT1 320(AX)
	PREFETCHT1 384(AX)
	PREFETCHT1 448(AX)
	PREFETCHT1 512(AX)
	CMPQ CX, $9
	JLE  done
	PREFETCHT1 576(AX)
	PREFETCHT1 640(AX)
	PREFETCHT1 704(AX)
	PREFETCHT1 768(AX)
	PREFETCHT1 832(AX)
	PREFETCHT1 896(AX)
	PREFETCHT1 960(AX)
	PREFETCHT1 1024(AX)

done:
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
