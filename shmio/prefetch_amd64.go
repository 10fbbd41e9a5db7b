package shmio

// prefetchRead asks for so many lines from p on, to be read. It waits for nothing, and what lies beyond any mapping does no harm.
//
//go:noescape
func prefetchRead(p *byte, lines int)

// prefetchWrite asks for them to be written: no other core has them then.
//
//go:noescape
func prefetchWrite(p *byte, lines int)
