package daemon

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/bhome-bus/bhome/actors"
)

// Access says who may do what on the bus. Wherever it lists who: "alice" or "1000" is a user, "@ops" or "@50" a group (of
// the effective or a supplementary group of the process), "*" everybody; an empty list is nobody.
type Access struct {
	Attach  []string `toml:"attach"`  // who may attach; ["*"]: whoever may connect to the socket
	Inspect []string `toml:"inspect"` // who may list processes, messages and topics; ["*"]: whoever is attached
	Rules   []Rule   `toml:"rule"`
}

// Rule says who may do what on some topics. For an action on a topic the first rule decides that covers the topic and lists
// the action; where there is none, everybody may.
type Rule struct {
	Name      string   `toml:"name"`   // for refusals and the log
	Topics    []string `toml:"topics"` // topics and patterns: a.b, a.*, a.>
	Publish   []string `toml:"publish"`
	Subscribe []string `toml:"subscribe"`
	Serve     []string `toml:"serve"`
	Request   []string `toml:"request"`
	Inspect   []string `toml:"inspect"` // who sees the topics in listings

	at string // file and line
}

const everybody = "*"

// where names a rule in messages.
func (r Rule) where(i int) string {
	at := fmt.Sprintf("access.rule %d", i+1)
	if r.Name != "" {
		at = fmt.Sprintf("access.rule %q", r.Name)
	}
	if r.at != "" {
		at = r.at + ": " + at
	}
	return at
}

// center resolves the names; the error says everything that is wrong, by rule and field. where names keys in it.
func (a Access) center(where func(key string) string) (actors.Access, error) {
	var out actors.Access
	var errs []error
	list := func(at string, names []string) *actors.Who {
		w, bad := who(names)
		for _, err := range bad {
			errs = append(errs, fmt.Errorf("%s: %w", at, err))
		}
		return w
	}
	out.Attach, out.Inspect = list(where("access.attach"), a.Attach), list(where("access.inspect"), a.Inspect)
	seen := map[string]string{}
	for i, r := range a.Rules {
		at := r.where(i)
		rule := actors.AccessRule{Name: r.Name, Topics: r.Topics}
		for _, f := range []struct {
			field string
			names []string
			to    **actors.Who
		}{{"publish", r.Publish, &rule.Publish}, {"subscribe", r.Subscribe, &rule.Subscribe}, {"serve", r.Serve, &rule.Serve},
			{"request", r.Request, &rule.Request}, {"inspect", r.Inspect, &rule.Inspect}} {
			if f.names != nil {
				*f.to = list(at+": "+f.field, f.names)
			}
		}
		if err := rule.Validate(); err != nil {
			for _, one := range strings.Split(err.Error(), "\n") {
				errs = append(errs, fmt.Errorf("%s: %s", at, one))
			}
		} else if first, twice := seen[r.Name]; twice {
			errs = append(errs, fmt.Errorf("%s: the name is taken by %s", at, first))
		}
		seen[r.Name] = at
		out.Rules = append(out.Rules, rule)
	}
	return out, errors.Join(errs...)
}

// who resolves a list, and says what is wrong with each that can't be.
func who(names []string) (w *actors.Who, errs []error) {
	w = &actors.Who{}
	for _, name := range names {
		if name == everybody {
			w.Everybody = true
			continue
		}
		group, isGroup := strings.CutPrefix(name, "@")
		var id uint32
		var err error
		if isGroup {
			if id, err = number(group, lookupGroup); err == nil {
				w.GIDs = append(w.GIDs, id)
			}
		} else if id, err = number(name, lookupUser); err == nil {
			w.UIDs = append(w.UIDs, id)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", name, err))
		}
	}
	return w, errs
}

// number is an id that is written as one, or what lookup says of a name.
func number(s string, lookup func(string) (string, error)) (uint32, error) {
	if s == "" {
		return 0, errors.New(`it names nobody; write "user", "@group", an id or "*"`)
	}
	text := s
	if _, err := strconv.ParseUint(s, 10, 64); err != nil {
		if text, err = lookup(s); err != nil {
			return 0, err
		}
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, errors.New("an id is 0 to 4294967294")
	}
	return uint32(id), nil
}

func lookupUser(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", errors.New("there is no such user on this machine")
	}
	return u.Uid, nil
}

func lookupGroup(name string) (string, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return "", errors.New("there is no such group on this machine")
	}
	return g.Gid, nil
}

// listsWhoAttaches reports whether the list, rather than the socket's mode, says who may attach.
func (a Access) listsWhoAttaches() bool { return !slices.Contains(a.Attach, everybody) }
