package actors

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/wire"
)

// Who is a set of users and groups, by the kernel's word on a process as it was when it connected: its effective uid, its
// effective gid and its supplementary groups. Nobody else is meant, root and the center's own user neither.
type Who struct {
	Everybody  bool
	UIDs, GIDs []uint32
}

// AccessRule says who may do what on some topics. An action of which it says nothing (nil) is another rule's to decide.
type AccessRule struct {
	Name   string   // what refusals say: 1 to 64 letters, digits, '-', '_' and '.'; no two have the same
	Topics []string // the topics and patterns that it is about
	// Publish, Subscribe, Serve and Request say who may; Inspect who sees the topics in listings.
	Publish, Subscribe, Serve, Request, Inspect *Who
}

// Access says who may do what. For an action on a topic the first rule decides that covers the topic and speaks of the
// action; where none does, everybody may who is attached.
//
// What lies under a rule's Subscribe, Serve or Request list is in memory of its own: messages, requests and replies each,
// which only processes get that the list admits.
type Access struct {
	Attach  *Who // who may attach; nil: who may connect to the socket
	Inspect *Who // who may ask for listings and the center's figures; nil: who is attached
	Rules   []AccessRule
}

const maxAccessRules = 1024

// action is something that a rule can speak of; the names are those of the configuration.
type action int

const (
	actPublish action = iota
	actSubscribe
	actServe
	actRequest
	actInspect
)

// String is the action in a sentence.
func (a action) String() string {
	return [...]string{"publish", "subscribe", "serve", "request", "inspect"}[a]
}

func (r *AccessRule) who(a action) *Who {
	return [...]*Who{r.Publish, r.Subscribe, r.Serve, r.Request, r.Inspect}[a]
}

func (r *AccessRule) covers(topic string) bool {
	return slices.ContainsFunc(r.Topics, func(pattern string) bool { return wire.MatchTopic(pattern, topic) })
}

// admits reports whether w means the process that id describes; nil means everybody.
func (w *Who) admits(id *Identity) bool {
	if w == nil || w.Everybody || slices.Contains(w.UIDs, id.UID) || slices.Contains(w.GIDs, id.GID) {
		return true
	}
	return slices.ContainsFunc(id.Groups, func(g uint32) bool { return slices.Contains(w.GIDs, g) })
}

// fingerprint tells one set from another.
func (w *Who) fingerprint() uint64 {
	h := fnv.New64a()
	sorted := func(ids []uint32) []uint32 {
		s := slices.Clone(ids)
		slices.Sort(s)
		return slices.Compact(s)
	}
	fmt.Fprintf(h, "%v %v", sorted(w.UIDs), sorted(w.GIDs)) // a hash never fails
	return h.Sum64()
}

// decides is the rule that decides on an action on a topic; nil: everybody may.
func (a *Access) decides(act action, topic string) *AccessRule {
	for i := range a.Rules {
		if r := &a.Rules[i]; r.who(act) != nil && r.covers(topic) {
			return r
		}
	}
	return nil
}

// refuses says why a process may not do something on a topic; nil: it may.
func (a *Access) refuses(id *Identity, act action, topic string) *bhomev1.ErrorMsg {
	if r := a.decides(act, topic); r != nil && !r.who(act).admits(id) {
		return notAllowed(id, r.Name, fmt.Sprintf("%v %q", act, topic))
	}
	return nil
}

// refusesPattern is refuses for a subscription to a pattern: it may be if there can be topics of it that id may subscribe
// to. It gets nothing of the others.
func (a *Access) refusesPattern(id *Identity, pattern string) *bhomev1.ErrorMsg {
	for i := range a.Rules {
		r := &a.Rules[i]
		w := r.who(actSubscribe)
		if w == nil {
			continue
		}
		if w.admits(id) {
			if slices.ContainsFunc(r.Topics, func(t string) bool { return wire.PatternsOverlap(t, pattern) }) {
				return nil
			}
		} else if slices.ContainsFunc(r.Topics, func(t string) bool { return wire.PatternCovers(t, pattern) }) {
			return notAllowed(id, r.Name, fmt.Sprintf("%v %q", actSubscribe, pattern))
		}
	}
	return nil
}

// group is the access group of what an action on a topic lets processes read: "" where everybody may. It names the rule and
// what its list was, so that what is written under another list is never put where those may read that this one admits.
func (a *Access) group(act action, topic string) string {
	if r := a.decides(act, topic); r != nil {
		return r.groupOf(act)
	}
	return ""
}

func (r *AccessRule) groupOf(act action) string {
	if r.who(act).Everybody {
		return ""
	}
	return fmt.Sprintf("%s/%v#%016x", r.Name, act, r.who(act).fingerprint())
}

// maxGroupName bounds the name of an access group: that of a rule, of an action, and what its list was.
const maxGroupName = 64 + 32

// notAllowed is the refusal of what a rule forbids.
func notAllowed(id *Identity, rule, what string) *bhomev1.ErrorMsg {
	m := errorMsg(bhomev1.ErrorCode_ERROR_CODE_NOT_ALLOWED, "access rule %q doesn't let uid %d (gid %d, groups %v) %s", rule, id.UID, id.GID, id.Groups, what)
	m.Rule = rule
	return m
}

// The names under which what is no topic's is refused.
const (
	ruleAttach  = "access.attach"
	ruleInspect = "access.inspect"
)

// validate says what is wrong with a.
func (a *Access) validate() (errs []error) {
	if len(a.Rules) > maxAccessRules {
		errs = append(errs, fmt.Errorf("Access: %d rules, at most %d", len(a.Rules), maxAccessRules))
	}
	seen := map[string]bool{}
	for i := range a.Rules {
		if err := a.Rules[i].Validate(); err != nil {
			errs = append(errs, fmt.Errorf("Access: rule %d: %w", i+1, err))
		} else if seen[a.Rules[i].Name] {
			errs = append(errs, fmt.Errorf("Access: rule %d: there is another rule %q", i+1, a.Rules[i].Name))
		}
		seen[a.Rules[i].Name] = true
	}
	return errs
}

// Validate says what is wrong with r, by its fields' names in lower case.
func (r *AccessRule) Validate() error {
	var errs []error
	if len(r.Name) < 1 || len(r.Name) > 64 || strings.ContainsFunc(r.Name, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}) {
		errs = append(errs, fmt.Errorf("name: %q, must be 1 to 64 letters, digits, '-', '_' and '.'", r.Name))
	}
	if r.Name == ruleAttach || r.Name == ruleInspect {
		errs = append(errs, fmt.Errorf("name: %q is what refusals to attach and to inspect are called", r.Name))
	}
	if len(r.Topics) == 0 {
		errs = append(errs, errors.New("topics: none; say which it is about, as in [\"plant.>\"]"))
	}
	for _, t := range r.Topics {
		if err := wire.ValidatePattern(t); err != nil {
			errs = append(errs, fmt.Errorf("topics: %w", err))
		}
	}
	if cmp.Or(r.Publish, r.Subscribe, r.Serve, r.Request, r.Inspect) == nil {
		errs = append(errs, errors.New("it says nothing of publish, subscribe, serve, request or inspect"))
	}
	return errors.Join(errs...)
}
