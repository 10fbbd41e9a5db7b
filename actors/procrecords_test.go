package actors

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
)

func TestProcTableFull(t *testing.T) {
	tab := newProcTable(3, 100)
	for i := range 3 {
		if got, err := tab.put(fmt.Sprint("p", i), uint64(100+i), 1); err != nil || got != i {
			t.Fatalf("put p%d: index %d, %v", i, got, err)
		}
	}
	i, err := tab.put("new", 200, 1)
	if err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_TABLE_FULL || i != -1 {
		t.Fatalf("a full table gave a new name index %d, %v", i, err)
	}
	if err.GetLimit() != "procs" || err.GetInUse() != 3 || err.GetMax() != 3 || !strings.Contains(err.GetMessage(), `"new"`) {
		t.Errorf("the refusal doesn't say enough: %v", err)
	}
	// The seed refuses a known one too. It must keep its index and get its new session.
	if i, err := tab.put("p1", 201, 1); err != nil || i != 1 || tab.procs[1].session != 201 {
		t.Fatalf("a known name in a full table: index %d, session %d, %v", i, tab.procs[1].session, err)
	}
	if tab.remaining() != 0 {
		t.Errorf("remaining %d", tab.remaining())
	}
}

func TestProcTableNeverAbove65536(t *testing.T) {
	tab := newProcTable(1<<20, 1<<20)
	for i := range maxProcs {
		if got, err := tab.put(fmt.Sprint(i), 100, 1); err != nil || got != i {
			t.Fatal(got, err)
		}
	}
	if _, err := tab.put("one more", 100, 1); err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_TABLE_FULL {
		t.Fatal("the 65,537th name has an index:", err)
	}
	if i, err := tab.put("65535", 300, 1); err != nil || i != 65535 {
		t.Fatal(i, err)
	}
}

func TestProcTableNamesPerUID(t *testing.T) {
	tab := newProcTable(100, 2)
	for _, n := range []string{"a", "b"} {
		if _, err := tab.put(n, 100, 7); err != nil {
			t.Fatal(err)
		}
	}
	_, err := tab.put("c", 100, 7)
	if err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_TOO_MANY || err.GetLimit() != "names_per_uid" || err.GetWhose() != "uid 7" || err.GetInUse() != 2 || err.GetMax() != 2 {
		t.Fatal("a third name of uid 7:", err)
	}
	if _, err := tab.put("a", 200, 7); err != nil {
		t.Error("a name that it has:", err)
	}
	if _, err := tab.put("c", 100, 8); err != nil {
		t.Error("another uid pays for it:", err)
	}
	if tab.remaining() != 97 {
		t.Errorf("remaining %d, want 97", tab.remaining())
	}
}

func TestProcTableNames(t *testing.T) {
	tab := newProcTable(100, 100)
	for _, bad := range []string{"", strings.Repeat("x", 256)} {
		if i, err := tab.put(bad, 100, 1); err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT || i != -1 {
			t.Errorf("name of %d bytes: index %d, %v", len(bad), i, err)
		}
	}
	if _, err := tab.put(strings.Repeat("x", 255), 100, 1); err != nil {
		t.Error(err)
	}
}

// A hundred thousand calls of bhctl from a shell use one name.
func TestProcTablePoolIsReused(t *testing.T) {
	tab := newProcTable(maxProcs, maxProcs)
	for i := range 100_000 {
		s := uint64(1000 + 10*i)
		name, index, err := tab.putPooled("bhctl", s, 1)
		if err != nil || name != "bhctl#1" || index != 0 {
			t.Fatalf("call %d: %q, index %d, %v", i, name, index, err)
		}
		if _, err := tab.register(name, holder{session: s, pid: 1, uid: 1}, false); err != nil {
			t.Fatal(err)
		}
		tab.gone(s, name)
	}
	if tab.remaining() != maxProcs-1 {
		t.Fatalf("%d names are used up", maxProcs-tab.remaining())
	}
}

func TestProcTablePoolGivesEachItsOwn(t *testing.T) {
	tab := newProcTable(100, 100)
	for i := 1; i <= 5; i++ {
		if name, index, err := tab.putPooled("tool", uint64(100*i), 1); err != nil || name != fmt.Sprint("tool#", i) || index != i-1 {
			t.Fatal(name, index, err)
		}
	}
	tab.gone(300, "tool#3") // it hadn't registered yet
	if name, index, err := tab.putPooled("tool", 900, 1); err != nil || name != "tool#3" || index != 2 {
		t.Fatal("the free name isn't used again:", name, index, err)
	}
	full := newProcTable(1, 100)
	if _, _, err := full.putPooled("tool", 100, 1); err != nil {
		t.Fatal(err)
	}
	if _, index, err := full.putPooled("tool", 200, 1); err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_TABLE_FULL || index != -1 {
		t.Fatal("a pool in a full table:", index, err)
	}
}

func TestProcTableRegister(t *testing.T) {
	first, second, other := holder{100, 11, 1}, holder{200, 22, 1}, holder{300, 33, 2}
	newTable := func() *procTable {
		tab := newProcTable(10, 10)
		for _, h := range []holder{first, second, other} {
			if _, err := tab.put("cam", h.session, h.uid); err != nil {
				t.Fatal(err)
			}
		}
		if d, err := tab.register("cam", first, false); d != nil || err != nil {
			t.Fatal(d, err)
		}
		return tab
	}
	for _, c := range []struct {
		name     string
		who      holder
		takeover bool
		refused  bool
	}{
		{"again", first, false, false},
		{"in use", second, false, true},
		{"takeover by the same uid", second, true, false},
		{"takeover by another uid", other, true, true},
		{"another uid", other, false, true},
	} {
		tab := newTable()
		displaced, err := tab.register("cam", c.who, c.takeover)
		if c.refused != (err != nil) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.refused {
			if err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_NAME_IN_USE || err.GetPid() != first.pid || err.GetUid() != first.uid {
				t.Errorf("%s: the refusal doesn't name the holder: %v", c.name, err)
			}
			if *tab.procs[0].owner != first {
				t.Errorf("%s: a refused one has the name: %v", c.name, tab.procs[0].owner)
			}
			continue
		}
		if (c.who != first) != (displaced != nil) || displaced != nil && *displaced != first {
			t.Errorf("%s: displaced %v", c.name, displaced)
		}
		if *tab.procs[0].owner != c.who || tab.procs[0].session != c.who.session {
			t.Errorf("%s: holder %v", c.name, tab.procs[0])
		}
		// The late end of the displaced one changes nothing for its successor.
		if displaced != nil {
			tab.gone(displaced.session, "cam")
			if o := tab.procs[0].owner; o == nil || *o != c.who {
				t.Errorf("%s: the displaced one's end took the name from its successor", c.name)
			}
		}
	}
	tab := newTable()
	if _, err := tab.register("nobody", first, false); err.GetCode() != bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT {
		t.Error("a name without ProcInit:", err)
	}
	tab.gone(first.session, "cam", "unknown")
	if _, err := tab.register("cam", other, false); err != nil {
		t.Error("a free name is refused:", err)
	}
	if i, _ := tab.put("cam", 400, 1); i != 0 {
		t.Error("the name has another index now:", i)
	}
}

// A pool gives the lowest number that is free, whatever has come and gone, under whatever names.
func TestProcTablePoolGivesTheLowestFreeNumber(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab := newProcTable(1000, 1000)
	users := map[string]uint64{} // name → session
	session := uint64(0)
	for step := range 3000 {
		session++
		switch r.IntN(5) {
		case 0, 1:
			want := 1
			for users[fmt.Sprint("x#", want)] != 0 {
				want++
			}
			name, _, err := tab.putPooled("x", session, 1)
			if err != nil || name != fmt.Sprint("x#", want) {
				t.Fatal(step, name, err, "want", want)
			}
			users[name] = session
		case 2: // names that only look like the pool's, or are of it though nobody asked the pool
			name := fmt.Sprint([]string{"x#", "x#0", "x", "x##", "x#-"}[r.IntN(5)], 1+r.IntN(20))
			if users[name] != 0 {
				continue
			}
			if _, err := tab.put(name, session, 1); err != nil {
				t.Fatal(step, err)
			}
			users[name] = session
			if r.IntN(2) == 0 {
				if _, err := tab.register(name, holder{session: session}, false); err != nil {
					t.Fatal(step, err)
				}
			}
		default:
			if len(users) == 0 {
				continue
			}
			name := slices.Sorted(maps.Keys(users))[r.IntN(len(users))]
			if r.IntN(2) == 0 {
				tab.leaves(users[name], name)
			}
			tab.gone(users[name], name)
			delete(users, name)
		}
	}
}
