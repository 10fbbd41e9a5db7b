package models

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// check is a model with the sizes that it is checked in.
type check struct {
	model   string
	defines string
	states  int // at least: fewer, and the model no longer does what it is for
}

// checks are exhaustive, and of the order of a second each.
var checks = []check{
	{"bell", "", 10_000},
	{"space", "N=5", 100_000},          // a quarter is less than all
	{"space", "D=1 N=3", 100_000},      // one slot
	{"space", "D=2 OUT=1 N=3", 50_000}, // returns are what makes room
	{"drop", "", 10_000},
	{"drop", "S=1 D=1 OUT=3", 10_000},
	{"drop", "S=4 D=1 OUT=3", 10_000}, // the ring is longer than its depth
	{"drop", "INLINE S=4", 10_000},
	{"drop", "MIXED S=4", 10_000},
	{"drop", "MIXED S=8", 10_000},
	{"drop", "READER_DIES", 100_000},
	{"drop", "WRITER_DIES", 100_000},
	{"drop", "MIXED S=4 READER_DIES", 100_000},
	{"drop", "MIXED S=4 WRITER_DIES", 100_000},
	{"returns", "", 100_000},
	{"returns", "HOSTILE LIES=1", 50_000},
	{"ending", "", 10_000},
	{"end", "", 100_000},
	{"end", "ABANDONS", 100_000},
	{"end", "REFUSES", 100_000},
}

// mistakes are planted by their names. pan says "invalid end state" of whoever waits for ever, and "assertion violated" of
// what is lost, doubled, or reused.
var mistakes = []struct {
	check
	want string
}{
	{check{"bell", "ARMED_BEFORE_TAIL", 0}, "invalid end state"},           // the writer looks whether anybody sleeps, then publishes
	{check{"bell", "TAIL_BEFORE_SLOT", 0}, "assertion violated"},           // published before it is written
	{check{"bell", "JOIN_IN_SILENCE", 0}, "invalid end state"},             // who slept before the writer joined isn't rung for
	{check{"bell", "ARMED_AFTER_THE_LOOK", 0}, "invalid end state"},        // the reader looks, then says that it sleeps
	{check{"bell", "SAME_EPOCH", 0}, "invalid end state"},                  // each sleep looks like the one that was rung for
	{check{"bell", "EMPTIED_AFTER_ARMING", 0}, "invalid end state"},        // a ring of this sleep goes with those of the last
	{check{"space", "D=1 N=4 LOOK_BEFORE_WISH", 0}, "invalid end state"},   // the sender looks for room, then asks to be rung
	{check{"space", "D=1 N=4 WISH_BEFORE_CURSOR", 0}, ""},                  // the reader looks for a wish, then publishes head
	{check{"space", "D=1 N=4 SAME_EPOCH", 0}, "invalid end state"},         // each wait looks like the one that was rung for
	{check{"space", "D=1 N=4 RUNG_WHEN_SEEN", 0}, "invalid end state"},     // the wish counts as granted before a quarter is read
	{check{"space", "D=1 N=4 QUARTER_TO_BE_MET", 0}, "invalid end state"},  // exactly at a quarter, though head may jump past
	{check{"space", "D=1 N=4 EPOCH_BEFORE_LAST", 0}, "assertion violated"}, // two goroutines of the reader ring for the same wish
	{check{"space", "D=2 OUT=1 N=3 RETURN_IN_SILENCE", 0}, "invalid end state"},
	{check{"drop", "CLAIM_IGNORED", 0}, "assertion violated"},
	{check{"drop", "CLAIM_LOOKED_AT_EARLY", 0}, "assertion violated"}, // before dropTo is stored, and not after
	{check{"drop", "CLAIM_MEANS_SKIPPED", 0}, "assertion violated"},   // skippedTo isn't looked at
	{check{"drop", "DROPTO_IGNORED", 0}, "assertion violated"},
	{check{"drop", "DROPTO_BEFORE_CLAIM", 0}, "assertion violated"},
	{check{"drop", "SKIP_RETURNED_ONCE", 0}, "assertion violated"}, // like one that was read
	{check{"drop", "PIN_FORGOTTEN", 0}, "assertion violated"},      // a slot under the reader's hand is written
	{check{"drop", "READ_BEFORE_JOINED", 0}, "assertion violated"}, // the writer doesn't honour claims yet
	{check{"drop", "MIXED S=4 TAIL_BEFORE_SLOT", 0}, "assertion violated"},
	{check{"drop", "MIXED S=4 PIN_FORGOTTEN", 0}, "assertion violated"},
	{check{"returns", "RETURN_BELIEVED", 0}, "assertion violated"}, // without the table
	{check{"returns", "ENTRY_KEPT", 0}, "assertion violated"},      // the table lets the same be returned again
	{check{"returns", "WITHOUT_LOCK", 0}, ""},                      // two goroutines take returns
	{check{"returns", "REFERENCE_AFTER_PUSH", 0}, "assertion violated"},
	{check{"returns", "RING_OVERWRITTEN", 0}, "assertion violated"}, // the reader doesn't look at returnedHead
	{check{"returns", "CURSOR_BEFORE_ENTRY", 0}, ""},
	{check{"returns", "PUSH_AFTER_DEATH", 0}, "invalid end state"}, // what nobody returns any more
	{check{"returns", "RECLAIMED_TWICE", 0}, "assertion violated"},
	{check{"ending", "UNREAD_BEFORE_ENDING", 0}, "assertion violated"}, // something is pushed between the two looks
	{check{"ending", "DEAD_BEFORE_GONE", 0}, "assertion violated"},     // a hang-up is taken for a death
	{check{"ending", "FREED_AT_DEATH", 0}, "assertion violated"},
	{check{"ending", "WOKEN_BEFORE_ENDING", 0}, "invalid end state"},
	{check{"ending", "DEAD_NOT_LOOKED_AT", 0}, "invalid end state"},
	{check{"ending", "ENDING_BEFORE_TAKING", 0}, "invalid end state"}, // and not after: nobody lets the route go
	{check{"end", "FREED_WHEN_EMPTY", 0}, "assertion violated"},       // the writer's half, without the reader's word
	{check{"end", "FREED_UNASKED", 0}, "assertion violated"},          // the reader's half, before the writer has let go
	{check{"end", "LEFT_NOT_TOLD", 0}, "invalid end state"},           // and the writer waits for it
	{check{"end", "LEFT_WHILE_HELD", 0}, "assertion violated"},        // a message is in the program's hands
	{check{"end", "SAME_IDENTITY", 0}, ""},                            // the next route in the memory has the same id
	{check{"end", "TAIL_BEFORE_OVER", 0}, "assertion violated"},       // the reader looks if anything waits, then if that is all
	{check{"end", "OVER_NOT_ASKED", 0}, "assertion violated"},         // the center's word that the route ends, and not the writer's
	{check{"end", "OVER_BEFORE_TAIL", 0}, "assertion violated"},       // the writer says that this was all, then publishes
	{check{"end", "DEAD_READ_UNASKED", 0}, "assertion violated"},      // what a dead writer's memory holds is another route's
	{check{"end", "LET_GO_UNSEEN", 0}, "invalid end state"},           // the reader waits for a writer that has given up
	{check{"end", "REFUSES READ_UNASKED", 0}, "assertion violated"},   // the cursors of a reader that has given up are believed
	{check{"end", "REFUSES REFUSAL_UNHEARD", 0}, "invalid end state"},
	{check{"end", "FORGOTTEN_AT_PIDFD", 0}, "assertion violated"},       // what the center has yet to tell of the dead is lost
	{check{"end", "GONE_AHEAD", 0}, "assertion violated"},               // PeerGone comes before what it is to come behind
	{check{"end", "ASK_FORGOTTEN", 0}, "invalid end state"},             // the center is asked before it knows of the death
	{check{"end", "DEATH_LEFT_TO_PIDFD", 0}, "invalid end state"},       // who hasn't got one is told by nobody
	{check{"end", "CLOSED_BEFORE_INTRODUCED", 0}, "assertion violated"}, // the halves of a route that is over aren't passed on
	{check{"end", "FORGOTTEN_BEFORE_FREED", 0}, "assertion violated"},   // unmapped while the watch of the death looks at it
	{check{"end", "END_NOT_POKED", 0}, "invalid end state"},             // the housekeeper sleeps
}

// TestModels checks every state of every model.
func TestModels(t *testing.T) {
	needTools(t)
	for _, c := range checks {
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			out := c.run(t, "-O1")
			// Whatever pan has to complain of begins so, also that the search was cut short.
			if !strings.Contains(out, "errors: 0") || regexp.MustCompile(`(?m)^(pan:|error:|Warning: Search)|not completed`).MatchString(withoutRate(out)) {
				t.Fatalf("%s: not every state was reached, or one is bad:\n%s", c.name(), out)
			}
			n := statesOf(t, out)
			if n < c.states {
				t.Errorf("%d states, expected at least %d: the model does too little", n, c.states)
			}
			t.Log(n, "states")
		})
	}
}

// TestMistakesAreFound plants each mistake in its model.
func TestMistakesAreFound(t *testing.T) {
	needTools(t)
	for _, m := range mistakes {
		t.Run(m.name(), func(t *testing.T) {
			t.Parallel()
			out := m.run(t, "-O0")
			if !strings.Contains(out, "errors: 1") || !strings.Contains(out, "pan:1: "+m.want) {
				t.Fatalf("%s: pan must say \"errors: 1\" and %q\n%s", m.name(), m.want, out)
			}
		})
	}
}

// TestMistakesAreAllTried compares the table with what the models offer.
func TestMistakesAreAllTried(t *testing.T) {
	tried := map[string]bool{"HOSTILE": true, "INLINE": true, "MIXED": true, "READER_DIES": true, "WRITER_DIES": true,
		"ABANDONS": true, "REFUSES": true}
	for _, m := range mistakes {
		for _, d := range strings.Fields(m.defines) {
			tried[m.model+" "+d] = true
		}
	}
	files, err := filepath.Glob("*.pml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	used := regexp.MustCompile(`#ifn?def ([A-Z_]{4,})|defined\(([A-Z_]{4,})\)`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range used.FindAllStringSubmatch(string(text), -1) {
			name, model := m[1]+m[2], strings.TrimSuffix(f, ".pml")
			if !tried[name] && !tried[model+" "+name] && !strings.Contains(string(text), "#ifndef "+name+"\n#define "+name+" ") {
				t.Errorf("%s: no test plants %s", f, name)
			}
		}
	}
}

func needTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the models of the protocol need %s, which isn't installed: apt-get install spin gcc libc6-dev (.ci/run does it)", tool)
		}
	}
}

func (c check) name() string { return strings.TrimSpace(c.model + " " + c.defines) }

// run has Spin make a checker of the model, compiles it and runs it. It returns what that says.
func (c check) run(t *testing.T, optimize string) string {
	t.Helper()
	file, err := filepath.Abs(c.model + ".pml")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	command := func(name string, args ...string) string {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	args := []string{"-a"}
	for _, d := range strings.Fields(c.defines) {
		args = append(args, "-D"+d)
	}
	command("spin", append(args, file)...)
	command("gcc", optimize, "-w", "-DSAFETY", "-DVECTORSZ=2048", "-DMEMLIM=1500", "-o", "pan", "pan.c")
	return command("./pan", "-m20000", "-n", "-w20")
}

// withoutRate leaves out how fast pan was and how long it took.
func withoutRate(out string) string {
	return regexp.MustCompile(`(?m)^pan: (rate|elapsed time) .*$`).ReplaceAllString(out, "")
}

func statesOf(t *testing.T, out string) int {
	t.Helper()
	m := regexp.MustCompile(`(\d+) states, stored`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("pan doesn't count states:\n%s", out)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
