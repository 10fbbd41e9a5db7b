// Package checks tests the architecture: what may import what, where `unsafe` and locks may be, what actors share,
// what has comments, which Go this is.
//
// It holds tests alone and is imported by nothing. Each rule is a function over parsed files, tried on planted mistakes
// (rules_test.go) before it is let loose on the repository (repository_test.go). A folder that isn't there has nothing
// to be found in.
package checks
