package shmio

// prefetchRead asks for prefetchLines lines from p on, to be read. It waits for nothing, and what lies beyond any mapping does no harm.
//
//go:noescape
func prefetchRead(p *byte)

// prefetchWrite asks for so many lines to be written: no other core has them then.
//
//go:noescape
func prefetchWrite(p *byte, lines int)
