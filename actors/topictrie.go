package actors

import (
	"strings"

	"github.com/bhome-bus/bhome/wire"
)

// topicTrie finds, by tokens, which of many patterns match a topic and which of many topics a pattern matches, without
// walking all of them. V is what stands at an entry.
type topicTrie[K comparable] struct {
	root    trieNode[K]
	entered uint64 // nodes that lookups have entered: what they cost
}

type trieNode[K comparable] struct {
	next map[string]*trieNode[K]
	here map[K]struct{} // entries that end here
	all  map[K]struct{} // patterns that end in `.` or `.>` here: all below
}

const topicSep = "."

func (n *trieNode[K]) child(tok string) *trieNode[K] {
	if n.next == nil {
		n.next = map[string]*trieNode[K]{}
	}
	c := n.next[tok]
	if c == nil {
		c = &trieNode[K]{}
		n.next[tok] = c
	}
	return c
}

// add puts a topic or pattern.
func (t *topicTrie[K]) add(pattern string, k K) {
	tokens, below := wire.PatternTokens(pattern)
	n := &t.root
	for _, tok := range tokens {
		n = n.child(tok)
	}
	set := &n.here
	if below {
		set = &n.all
	}
	if *set == nil {
		*set = map[K]struct{}{}
	}
	(*set)[k] = struct{}{}
}

// remove takes it out again, and nodes that nothing needs any more.
func (t *topicTrie[K]) remove(pattern string, k K) {
	tokens, below := wire.PatternTokens(pattern)
	path := []*trieNode[K]{&t.root}
	for _, tok := range tokens {
		n := path[len(path)-1].next[tok]
		if n == nil {
			return
		}
		path = append(path, n)
	}
	n := path[len(path)-1]
	if below {
		delete(n.all, k)
	} else {
		delete(n.here, k)
	}
	for i := len(path) - 1; i > 0; i-- {
		if n := path[i]; len(n.next)+len(n.here)+len(n.all) > 0 {
			return
		}
		delete(path[i-1].next, tokens[i-1])
	}
}

// matchTopic visits the entries whose pattern matches a topic: the work grows with the topic's tokens, not with the
// number of patterns.
func (t *topicTrie[K]) matchTopic(topic string, f func(k K)) {
	tokens := strings.Split(topic, topicSep)
	var walk func(n *trieNode[K], i int)
	walk = func(n *trieNode[K], i int) {
		t.entered++
		if i < len(tokens) {
			for k := range n.all {
				f(k)
			}
			if c := n.next[tokens[i]]; c != nil {
				walk(c, i+1)
			}
			if c := n.next["*"]; c != nil && tokens[i] != "*" {
				walk(c, i+1)
			}
			return
		}
		for k := range n.here {
			f(k)
		}
	}
	walk(&t.root, 0)
}

// matchPattern visits the entries, plain topics, that a pattern matches.
func (t *topicTrie[K]) matchPattern(pattern string, f func(k K)) {
	tokens, below := wire.PatternTokens(pattern)
	var everything func(n *trieNode[K])
	everything = func(n *trieNode[K]) {
		t.entered++
		for k := range n.here {
			f(k)
		}
		for _, c := range n.next {
			everything(c)
		}
	}
	var walk func(n *trieNode[K], i int)
	walk = func(n *trieNode[K], i int) {
		t.entered++
		switch {
		case i == len(tokens) && below:
			for _, c := range n.next {
				everything(c)
			}
		case i == len(tokens):
			for k := range n.here {
				f(k)
			}
		case tokens[i] == "*":
			for _, c := range n.next {
				walk(c, i+1)
			}
		default:
			if c := n.next[tokens[i]]; c != nil {
				walk(c, i+1)
			}
		}
	}
	walk(&t.root, 0)
}
