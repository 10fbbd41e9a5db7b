package shmio

// prefetchRead asks for at least so many lines from p on (17 at most), to be read, into the second level cache: those of a batch are
// too many for the first. It waits for nothing, and what lies beyond any mapping does no harm.
//
//go:noescape
func prefetchRead(p *byte, lines int)

// prefetchWrite asks for them to be written: no other core has them then.
//
//go:noescape
func prefetchWrite(p *byte, lines int)
