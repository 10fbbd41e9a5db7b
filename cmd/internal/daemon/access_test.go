package daemon

import (
	"bytes"
	"os"
	"os/user"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/bhome-bus/bhome/actors"
)

func TestAccessRules(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	gid, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	text := `
[access]
attach = ["` + me.Username + `", "@` + gid.Name + `", "@70000"]

[[access.rule]]
name = "plant"
topics = ["plant.>", "weather"]
publish = ["70001", 'root']
subscribe = []

  [[ access.rule ]] # another
name = "valves"
topics = ["valve.*"]
serve = ["*"]
request = ["4294967294"]
inspect = ["@0"]
`
	c := Default()
	if err := Parse("f.toml", []byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	got, err := c.Access.center(c.where)
	if err != nil {
		t.Fatal(err)
	}
	want := actors.Access{
		Attach:  &actors.Who{UIDs: []uint32{uint32(os.Geteuid())}, GIDs: []uint32{id(t, me.Gid), 70000}},
		Inspect: &actors.Who{Everybody: true},
		Rules: []actors.AccessRule{
			{Name: "plant", Topics: []string{"plant.>", "weather"}, Publish: &actors.Who{UIDs: []uint32{70001, 0}}, Subscribe: &actors.Who{}},
			{Name: "valves", Topics: []string{"valve.*"}, Serve: &actors.Who{Everybody: true}, Request: &actors.Who{UIDs: []uint32{4294967294}}, Inspect: &actors.Who{GIDs: []uint32{0}}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if a := must(c.center(nil)); a.SocketMode != 0o666 || a.Validate() != nil {
		t.Errorf("a list says who attaches, and the socket's mode is %v; %v", a.SocketMode, a.Validate())
	}
	if a := must(Default().center(nil)); a.SocketMode != 0o660 {
		t.Errorf("nobody is listed, and the socket's mode is %v", a.SocketMode)
	}

	// What --print-config shows means the same: that nobody may subscribe, and who may isn't said elsewhere.
	var shown bytes.Buffer
	if err := toml.NewEncoder(&shown).Encode(c); err != nil {
		t.Fatal(err)
	}
	again := Default()
	if err := Parse("shown.toml", shown.Bytes(), &again); err != nil {
		t.Fatalf("%v:\n%s", err, &shown)
	}
	if back, err := again.Access.center(again.where); err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("shown as\n%s\nit means %+v, %v", &shown, back, err)
	}
}

func TestAccessRulesThatAreWrong(t *testing.T) {
	const good = "[[access.rule]]\nname = \"a\"\ntopics = [\"a.>\"]\npublish = [\"1\"]\n"
	for _, tc := range []struct{ name, text, want string }{
		{"no such user", "[[access.rule]]\nname = \"p\"\ntopics = [\"a\"]\npublish = [\"nobody-is-called-so\"]\n", `f.toml:1: access.rule "p": publish: "nobody-is-called-so": there is no such user on this machine`},
		{"no such group", good + "\n[[access.rule]]\nname = \"p\"\ntopics = [\"a\"]\nserve = [\"@nobody-is-called-so\"]\n", `f.toml:6: access.rule "p": serve: "@nobody-is-called-so": there is no such group`},
		{"no name", "[[access.rule]]\ntopics = [\"a\"]\npublish = [\"1\"]\n", `f.toml:1: access.rule 1: name: "", must be`},
		{"a name with blanks", "[[access.rule]]\nname = \"a b\"\ntopics = [\"a\"]\npublish = [\"1\"]\n", `name: "a b", must be`},
		{"no topics", "[[access.rule]]\nname = \"p\"\npublish = [\"1\"]\n", `access.rule "p": topics: none`},
		{"a bad pattern", "[[access.rule]]\nname = \"p\"\ntopics = [\"a.>.b\"]\npublish = [\"1\"]\n", `access.rule "p": topics:`},
		{"nothing said", "[[access.rule]]\nname = \"p\"\ntopics = [\"a\"]\n", `access.rule "p": it says nothing of publish`},
		{"a name twice", good + good, `f.toml:5: access.rule "a": the name is taken by f.toml:1`},
		{"an id too large", "[access]\nattach = [\"4294967295\"]\n", `access.attach: "4294967295": an id is 0 to 4294967294`},
		{"a sign", "[access]\ninspect = [\"@\"]\n", `access.inspect: "@": it names nobody`},
		{"an unknown field", "[[access.rule]]\nname = \"p\"\nsubcribe = [\"1\"]\n", `f.toml:3: unknown key "access.rule.subcribe"; did you mean "access.rule.subscribe"?`},
		{"not a list", "[access]\nattach = \"root\"\n", "f.toml:2: access.attach: text, must be a list"},
	} {
		c := Default()
		err := Parse("f.toml", []byte(tc.text), &c)
		if err == nil {
			err = c.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v\nwant %s", tc.name, err, tc.want)
		}
	}
}

func id(t *testing.T, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
