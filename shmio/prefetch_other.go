//go:build !amd64

package shmio

func prefetchRead(*byte, int) {}

func prefetchWrite(*byte, int) {}
