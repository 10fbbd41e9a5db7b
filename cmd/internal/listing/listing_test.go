package listing

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

type row struct {
	name  string
	n     uint64
	rate  float64
	users []string
}

func list() Listing[row] {
	return Listing[row]{
		Name: "things", ID: func(r row) string { return r.name }, Sort: "name",
		Columns: []Column[row]{
			{Key: "name", Value: func(r row) any { return r.name }},
			{Key: "in_use", Right: true, Claimed: true, Value: func(r row) any { return r.n }},
			{Key: "rate", Header: "per s", Right: true, Value: func(r row) any { return r.rate }},
			{Key: "users", Value: func(r row) any { return r.users }, Text: func(r row) string { return strings.Join(r.users, "+") }},
			{Key: "raw", JSONOnly: true, Value: func(r row) any { return r.n * 2 }},
		},
	}
}

func rows() []row {
	return []row{{"b", 9, 0.5, nil}, {"a", 10, 12, []string{"x", "y"}}, {"c\x1b[2J\n", 1, 3, []string{"z"}}}
}

func render(t *testing.T, o Options, extras ...Extra) string {
	t.Helper()
	var b strings.Builder
	if err := list().Render(&b, rows(), o, extras...); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTable(t *testing.T) {
	got := render(t, Options{}, Extra{"total", 3, "3 things"})
	want := `NAME           IN USE*  PER S  USERS
a                   10  12.0  x+y
b                    9   0.5  -
c\x1b[2J\n       1   3.0  z
3 things
`
	want = strings.ReplaceAll(want, "c\\x1b[2J\\n    ", "c\\x1b[2J\\n")
	if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	lines := strings.Split(got, "\n")
	col := strings.Index(lines[0], "IN USE*") + len("IN USE*")
	for _, l := range lines[1:4] {
		if l[col-1] == ' ' || l[col] != ' ' {
			t.Errorf("not aligned to the right at %d: %q", col, l)
		}
	}
}

func TestSort(t *testing.T) {
	for by, want := range map[string]string{"": "abc", "-name": "cba", "in_use": "cba", "-in_use": "abc", "rate": "bca", "per_s": "bca", "users": "bca", "raw": "cba"} {
		got := ""
		for l := range strings.Lines(render(t, Options{Quiet: true, Sort: by})) {
			got += l[:1]
		}
		if got != want {
			t.Errorf("sort %q: %s, want %s", by, got, want)
		}
	}
	err := list().Render(&strings.Builder{}, rows(), Options{Sort: "-size"})
	if e := (*ErrNoColumn)(nil); !errors.As(err, &e) || !strings.Contains(err.Error(), "name, in_use, rate") {
		t.Errorf("unknown column: %v", err)
	}
}

func TestJSON(t *testing.T) {
	for _, compact := range []bool{false, true} {
		got := render(t, Options{JSON: true, Compact: compact}, Extra{"total", 3, "3 things"})
		var doc struct {
			Things []struct {
				Name  string   `json:"name"`
				InUse uint64   `json:"in_use"`
				Users []string `json:"users"`
				Raw   uint64   `json:"raw"`
			} `json:"things"`
			Total int `json:"total"`
		}
		if err := json.Unmarshal([]byte(got), &doc); err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		if doc.Total != 3 || len(doc.Things) != 3 || doc.Things[0].Name != "a" || doc.Things[0].Raw != 20 || doc.Things[1].Users == nil {
			t.Errorf("got %+v", doc)
		}
		if doc.Things[2].Name != "c\x1b[2J\n" {
			t.Errorf("JSON must carry text as it is: %q", doc.Things[2].Name)
		}
		if strings.Contains(got, "\x1b") {
			t.Errorf("raw control character in %q", got)
		}
		if n := strings.Count(got, "\n"); compact && n != 1 {
			t.Errorf("compact has %d lines", n)
		}
		if strings.Index(got, `"name"`) > strings.Index(got, `"raw"`) {
			t.Errorf("columns out of order: %s", got)
		}
	}
}

func TestEmpty(t *testing.T) {
	var b strings.Builder
	if err := list().Render(&b, nil, Options{JSON: true, Compact: true}); err != nil || b.String() != "{\"things\":[]}\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestWidthAndBold(t *testing.T) {
	for l := range strings.Lines(render(t, Options{Width: 12})) {
		if n := len([]rune(strings.TrimSuffix(l, "\n"))); n > 12 {
			t.Errorf("%d columns: %q", n, l)
		}
	}
	if got := render(t, Options{Bold: true}); !strings.HasPrefix(got, "\x1b[1mNAME") || strings.Count(got, "\x1b") != 2 {
		t.Errorf("%q", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"camera.front": "camera.front", "grüße 日本": "grüße 日本", "a\tb": `a\tb`, "\x1b]0;x\a": `\x1b]0;x\a`,
		"bad\xff": `bad\xff`, "\u202egnp": `\u202egnp`, "\u009b2J": `\u009b2J`,
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}
