//go:build !amd64

package shmio

func prefetchRead(*byte) {}

func prefetchWrite(*byte, int) {}
