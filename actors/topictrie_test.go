package actors

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bhome-bus/bhome/wire"
)

// topicGen draws topics of few tokens from few letters, so that patterns match often.
func topicGen() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		toks := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "aa", "*x"}), 1, 5).Draw(t, "tokens")
		return strings.Join(toks, ".")
	})
}

func patternGen() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		toks := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "*", "aa"}), 0, 4).Draw(t, "tokens")
		switch end := rapid.SampledFrom([]string{"exact", ".", ">"}).Draw(t, "end"); {
		case len(toks) == 0:
			return ">"
		case end == "exact":
			return strings.Join(toks, ".")
		case end == ".":
			return strings.Join(toks, ".") + "."
		default:
			return strings.Join(toks, ".") + ".>"
		}
	})
}

// The tries and wire.MatchTopic are two ways to say the same.
func TestTopicTrieAgreesWithMatchTopic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patterns, topics := map[string]bool{}, map[string]bool{}
		var pt, tt topicTrie[string]
		steps := rapid.IntRange(1, 40).Draw(t, "steps")
		for range steps {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				p := patternGen().Draw(t, "pattern")
				if err := wire.ValidatePattern(p); err != nil {
					t.Fatal(err)
				}
				pt.add(p, p)
				patterns[p] = true
			case 2, 3:
				s := topicGen().Draw(t, "topic")
				tt.add(s, s)
				topics[s] = true
			case 4:
				p := patternGen().Draw(t, "remove pattern")
				pt.remove(p, p)
				delete(patterns, p)
			case 5:
				s := topicGen().Draw(t, "remove topic")
				tt.remove(s, s)
				delete(topics, s)
			}
		}
		compare := func(what string, got, want []string) {
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %q, want %q", what, got, want)
			}
		}
		for s := range topics {
			var got, want []string
			pt.matchTopic(s, func(p string) { got = append(got, p) })
			for p := range patterns {
				if wire.MatchTopic(p, s) {
					want = append(want, p)
				}
			}
			compare("patterns of topic "+s, got, want)
		}
		for p := range patterns {
			var got, want []string
			tt.matchPattern(p, func(s string) { got = append(got, s) })
			for s := range topics {
				if wire.MatchTopic(p, s) {
					want = append(want, s)
				}
			}
			compare("topics of pattern "+p, got, want)
		}
		for p := range patterns {
			pt.remove(p, p)
		}
		for s := range topics {
			tt.remove(s, s)
		}
		for _, r := range []*trieNode[string]{&pt.root, &tt.root} {
			if len(r.next)+len(r.here)+len(r.all) > 0 {
				t.Fatal("an emptied trie keeps nodes")
			}
		}
	})
}

// A lookup costs what matches, and the topic's tokens, not what else there is.
func TestTopicTrieCost(t *testing.T) {
	var pt, tt topicTrie[int]
	const many = 10_000
	for i := range many {
		pt.add(fmt.Sprintf("cam.%d.front", i), i)
		tt.add(fmt.Sprintf("cam.%d.front", i), i)
	}
	pt.add("cam.*.front", many)
	pt.add("cam.", many+1)
	cost := func(f func()) uint64 {
		before := pt.entered + tt.entered
		f()
		return pt.entered + tt.entered - before
	}
	hits := 0
	// 3 tokens, each of them plain or *: at most 1+2+4+8 nodes.
	if c := cost(func() { pt.matchTopic("cam.77.front", func(int) { hits++ }) }); c > 15 || hits != 3 {
		t.Errorf("a topic among %d patterns: %d nodes, %d hits", many, c, hits)
	}
	hits = 0
	if c := cost(func() { tt.matchPattern("cam.77.front", func(int) { hits++ }) }); c > 4 || hits != 1 {
		t.Errorf("an exact pattern among %d topics: %d nodes, %d hits", many, c, hits)
	}
	hits = 0
	if c := cost(func() { tt.matchPattern("cam.77.", func(int) { hits++ }) }); c > 5 || hits != 1 {
		t.Errorf("a prefix among %d topics: %d nodes, %d hits", many, c, hits)
	}
	hits = 0
	if c := cost(func() { tt.matchPattern("gps.>", func(int) { hits++ }) }); c > 2 || hits != 0 {
		t.Errorf("a pattern that matches none of %d topics: %d nodes, %d hits", many, c, hits)
	}
}
