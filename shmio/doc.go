// Package shmio is shared memory between processes that don't trust each other: sealed segments, the queues in them,
// bells, descriptor passing, and the goroutine that watches bells and deaths.
//
// It owns the one rule: a process writes only its own segments, and the MMU enforces it. Everything read from another
// process is loaded once into a local, checked, then used. It is the only package with unsafe, in *_unsafe.go. It must
// never take a lock that is shared between processes, trust a length it reads, or block a caller on another process.
package shmio
