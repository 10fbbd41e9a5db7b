package wire

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxTopic is the length of a topic or pattern, in bytes.
const MaxTopic = 255

const topicSep = "."

// ValidateTopic says what is wrong with a topic to publish on or to serve.
func ValidateTopic(topic string) error {
	if err := validText(topic); err != nil {
		return err
	}
	for tok := range strings.SplitSeq(topic, topicSep) {
		switch tok {
		case "":
			return fmt.Errorf("%w %q: an empty token; tokens are separated by single dots", ErrBadTopic, topic)
		case "*", ">":
			return fmt.Errorf("%w %q: %q is for subscriptions only", ErrBadTopic, topic, tok)
		}
	}
	return nil
}

// ValidatePattern says what is wrong with a pattern to subscribe to: a topic, `a.` or `a.>` (all below a), `>` (all), with
// `*` for one token.
func ValidatePattern(pattern string) error {
	if err := validText(pattern); err != nil {
		return err
	}
	tokens := strings.Split(pattern, topicSep)
	for i, tok := range tokens {
		last := i == len(tokens)-1
		switch {
		case tok == "" && (!last || i == 0):
			return fmt.Errorf("%w %q: an empty token; only the last may be empty, as in \"a.\"", ErrBadTopic, pattern)
		case tok == ">" && !last:
			return fmt.Errorf("%w %q: \">\" must be the last token", ErrBadTopic, pattern)
		}
	}
	return nil
}

func validText(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: it is empty", ErrBadTopic)
	case len(s) > MaxTopic:
		return fmt.Errorf("%w: %d bytes, at most %d: %q…", ErrBadTopic, len(s), MaxTopic, strings.ToValidUTF8(s[:32], "?"))
	case !utf8.ValidString(s):
		return fmt.Errorf("%w %q: not UTF-8", ErrBadTopic, s)
	case strings.ContainsRune(s, 0):
		return fmt.Errorf("%w %q: a NUL byte", ErrBadTopic, s)
	}
	return nil
}

// MatchTopic reports whether a valid pattern matches a valid topic.
func MatchTopic(pattern, topic string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, topicSep)
		if !pmore && (p == "" || p == ">") {
			return topic != ""
		}
		t, trest, tmore := strings.Cut(topic, topicSep)
		if t == "" || p != "*" && p != t {
			return false
		}
		switch {
		case !pmore && !tmore:
			return true
		case !pmore:
			return false
		case !tmore:
			return false
		}
		pattern, topic = prest, trest
	}
}

// PatternCovers reports whether a valid pattern matches every topic that the valid pattern inner matches.
func PatternCovers(pattern, inner string) bool {
	tokens, below := PatternTokens(pattern)
	its, itsBelow := PatternTokens(inner)
	switch {
	case !below && (itsBelow || len(its) != len(tokens)):
		return false
	case below && minTokens(its, itsBelow) <= len(tokens):
		return false
	}
	for i, tok := range tokens { // its tokens are as many at least
		if tok != "*" && tok != its[i] {
			return false
		}
	}
	return true
}

// PatternsOverlap reports whether there are topics that two valid patterns both match.
func PatternsOverlap(a, b string) bool {
	as, aBelow := PatternTokens(a)
	bs, bBelow := PatternTokens(b)
	for i := range min(len(as), len(bs)) {
		if as[i] != "*" && bs[i] != "*" && as[i] != bs[i] {
			return false
		}
	}
	switch {
	case aBelow && bBelow:
		return true
	case aBelow:
		return len(bs) > len(as)
	case bBelow:
		return len(as) > len(bs)
	default:
		return len(as) == len(bs)
	}
}

// PatternTokens is a valid pattern's tokens, and whether it means all below them.
func PatternTokens(pattern string) (tokens []string, below bool) {
	tokens = strings.Split(pattern, topicSep)
	if last := tokens[len(tokens)-1]; last == "" || last == ">" {
		return tokens[:len(tokens)-1], true
	}
	return tokens, false
}

// minTokens is how many tokens a topic has at least that a pattern matches.
func minTokens(tokens []string, below bool) int {
	if below {
		return len(tokens) + 1
	}
	return len(tokens)
}
