package ctl

import (
	"fmt"

	"github.com/bhome-bus/bhome/node"
)

// policyFlag is what happens to messages that find a queue full, as a flag.
type policyFlag struct{ node.Policy }

func (p *policyFlag) Type() string { return "policy" }

func (p *policyFlag) String() string {
	switch p.Policy {
	case node.DropNewest:
		return "drop-newest"
	case node.Block:
		return "block"
	default:
		return "drop-oldest"
	}
}

func (p *policyFlag) Set(s string) error {
	switch s {
	case "drop-oldest", "oldest":
		p.Policy = node.DropOldest
	case "drop-newest", "newest":
		p.Policy = node.DropNewest
	case "block":
		p.Policy = node.Block
	default:
		return fmt.Errorf("%q is not a policy; there are drop-oldest, drop-newest and block", s)
	}
	return nil
}
