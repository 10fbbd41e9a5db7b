package models

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

const (
	readerEnv = "BHOME_MODELS_READER" // makes this binary the receiving process: the policy
	messages  = 6000
	depth     = 4
	patience  = time.Minute // guards against hanging only
)

func TestMain(m *testing.M) {
	if policy := os.Getenv(readerEnv); policy != "" {
		if err := receive(policy, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, "reader:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// The kinds of events of a history.
const (
	sent     = "sent"
	full     = "full"     // there was no room: refused, or with DropNewest dropped
	received = "received" // Value
	empty    = "empty"
	dropped  = "dropped" // some time after it was sent
)

// event is one operation on the queue: when it began and ended, in ns of CLOCK_MONOTONIC, which all processes share.
type event struct {
	Kind      string
	Value     uint64
	Call, End int64
}

func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

func specOf(policy string) (shmio.RouteSpec, error) {
	p := map[string]shmio.Policy{"drop-oldest": shmio.DropOldest, "drop-newest": shmio.DropNewest, "block": shmio.BlockOnFull}
	s, ok := p[policy]
	if !ok {
		return shmio.RouteSpec{}, fmt.Errorf("policy %q", policy)
	}
	return shmio.RouteSpec{ID: 7, Slots: 16 * depth, Depth: depth, Out: 4 * depth, Policy: s}, nil
}

// half makes a segment and the place of a half in it.
func half(size uint64) (*shmio.Segment, []byte, error) {
	seg, err := shmio.CreateSegment("history", shmio.SegmentSpec{Kind: shmio.KindControl, Number: 1, Size: shmio.FirstBlock + size + 4096})
	if err != nil {
		return nil, nil, err
	}
	seg.Publish(shmio.StateAttached)
	mem, err := seg.Memory(shmio.FirstBlock, size)
	return seg, mem, err
}

// peerHalf maps a half of another process, read-only; at is pid/descriptor.
func peerHalf(at string, size uint64) (*shmio.Segment, []byte, error) {
	pid, fd, _ := strings.Cut(at, "/")
	n, err := unix.Open("/proc/"+pid+"/fd/"+fd, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	seg, err := shmio.OpenSegment(shmio.NewFD(n), shmio.Want{Kinds: []shmio.Kind{shmio.KindControl}, CloseFD: true})
	if err != nil {
		return nil, nil, err
	}
	mem, err := seg.Memory(shmio.FirstBlock, size)
	return seg, mem, err
}

func whereIs(s *shmio.Segment) string { return fmt.Sprintf("%d/%d", os.Getpid(), s.FD().Int()) }

// receive is the receiving process: it says where its half is, receives up to the last message, and tells its history.
func receive(policy, writer string) error {
	spec, err := specOf(policy)
	if err != nil {
		return err
	}
	seg, mem, err := half(spec.ReaderSize())
	if err != nil {
		return err
	}
	defer seg.Close()
	r, err := shmio.NewReader(mem, spec)
	if err != nil {
		return err
	}
	theirs, wmem, err := peerHalf(writer, spec.WriterSize())
	if err != nil {
		return err
	}
	defer theirs.Close()
	if err := r.Join(wmem, nil); err != nil {
		return err
	}
	fmt.Println(whereIs(seg))
	var rec shmio.Record
	var events []event
	deadline := time.Now().Add(patience)
	for last := uint64(0); last != messages; {
		e := event{Call: now()}
		ok, err := r.TryReceive(&rec)
		e.End = now()
		if err != nil {
			return err
		}
		if !ok {
			if len(events) == 0 || events[len(events)-1].Kind != empty { // one of many looks in vain says as much
				e.Kind = empty
				events = append(events, e)
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the last message never came; this is after %d", last)
			}
			runtime.Gosched()
			continue
		}
		e.Kind, e.Value = received, uint64(rec.Corr)
		if rec.IsBlock() {
			place, _, err := rec.Word.Message()
			if err != nil {
				return err
			}
			e.Value = uint64(place / 4)
			r.Return(rec.Seq)
		} else if e.Value = binary.LittleEndian.Uint64(rec.Payload); e.Value != rec.Corr && rec.Head.HasCorr() {
			return fmt.Errorf("message %d has the payload of %d", rec.Corr, e.Value)
		}
		last = e.Value
		events = append(events, e)
	}
	out := json.NewEncoder(os.Stdout)
	return out.Encode(events)
}

// record sends messages to a process of its own and returns the history of both.
func record(t *testing.T, policy string) []event {
	t.Helper()
	spec, err := specOf(policy)
	noErr(t, err)
	seg, mem, err := half(spec.WriterSize())
	noErr(t, err)
	t.Cleanup(func() { seg.Close() })
	w, err := shmio.NewWriter(mem, spec)
	noErr(t, err)
	c := exec.CommandContext(t.Context(), "/proc/self/exe", whereIs(seg))
	c.Env, c.Stderr = append(os.Environ(), readerEnv+"="+policy), os.Stderr
	pipe, err := c.StdoutPipe()
	noErr(t, err)
	noErr(t, c.Start())
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	})
	out := bufio.NewReader(pipe)
	where, err := out.ReadString('\n')
	noErr(t, err)
	theirs, rmem, err := peerHalf(strings.TrimSpace(where), spec.ReaderSize())
	noErr(t, err)
	t.Cleanup(func() { theirs.Close() })
	noErr(t, w.Join(rmem, nil))

	var events []event
	payload := make([]byte, 8)
	deadline := time.Now().Add(patience)
	for v := uint64(1); v <= messages; v++ {
		for refused := false; ; refused = true {
			e := event{Kind: sent, Value: v, Call: now()}
			var o shmio.Outcome
			if v%2 == 0 && v != messages {
				word, err := wire.Message(uint32(4*v), 0)
				noErr(t, err)
				o = w.Push(word, 8, nil)
			} else {
				binary.LittleEndian.PutUint64(payload, v)
				o = w.PushInline(wire.Inline{HasCorr: true, Corr: v}, payload)
			}
			w.Commit()
			e.End = now()
			if o != shmio.Sent {
				e.Kind = full
			}
			if o == shmio.Sent || !refused {
				events = append(events, e)
			}
			if o == shmio.Sent || o == shmio.DroppedNewest && v != messages {
				break
			}
			if o != shmio.Full && o != shmio.DroppedNewest || time.Now().After(deadline) {
				t.Fatal(o, w.Err())
			}
			runtime.Gosched()
		}
		if v%(6*depth) == 0 { // bursts longer than the queue, or the faster of the two would only ever meet it full or empty
			for w.Unread() > 0 && time.Now().Before(deadline) {
				runtime.Gosched()
			}
		}
	}
	end := now()
	text, err := io.ReadAll(out)
	noErr(t, err)
	noErr(t, c.Wait())
	ended = true
	var theirEvents []event
	noErr(t, json.Unmarshal(text, &theirEvents))
	got := map[uint64]bool{}
	for _, e := range theirEvents {
		got[e.Value] = got[e.Value] || e.Kind == received
	}
	if policy == "drop-oldest" { // dropping is an operation of its own: between it and the new message's coming the reader may look
		for _, e := range slices.Clone(events) {
			if e.Kind == sent && !got[e.Value] {
				events = append(events, event{Kind: dropped, Value: e.Value, Call: e.Call, End: end})
			}
		}
	}
	return append(events, theirEvents...)
}

// queue is what a route is: first in, first out, at most depth; full refuses, and only from a full one is the oldest dropped.
var queue = porcupine.Model{
	Init: func() any { return [2]uint64{} },
	Step: func(state, input, _ any) (bool, any) {
		// What waits are depth values at most, of 16 bits each, the oldest lowest: a state that can be compared.
		s := state.([2]uint64)
		q, n := s[0], s[1]
		switch e := input.(event); e.Kind {
		case sent:
			return n < depth, [2]uint64{q | e.Value<<(16*n), n + 1}
		case full:
			return n == depth, s
		case received:
			return n > 0 && q&0xffff == e.Value, [2]uint64{q >> 16, n - 1}
		case dropped:
			return n == depth && q&0xffff == e.Value, [2]uint64{q >> 16, n - 1}
		default:
			return n == 0, s
		}
	},
}

func linearizable(events []event) porcupine.CheckResult {
	ops := make([]porcupine.Operation, len(events))
	for i, e := range events {
		ops[i] = porcupine.Operation{Input: e, Call: e.Call, Return: e.End}
	}
	return porcupine.CheckOperationsTimeout(queue, ops, patience)
}

// TestHistories: what two processes did to a route could have been done one after the other to a queue.
func TestHistories(t *testing.T) {
	for _, policy := range []string{"block", "drop-newest", "drop-oldest"} {
		t.Run(policy, func(t *testing.T) {
			events := record(t, policy)
			kinds := map[string]int{}
			for _, e := range events {
				kinds[e.Kind]++
			}
			t.Log(kinds)
			if r := linearizable(events); r != porcupine.Ok {
				file, _ := json.Marshal(events)
				path := os.TempDir() + "/bhome-history-" + policy + "-" + strconv.Itoa(os.Getpid()) + ".json"
				t.Fatal(r, "is what the checker says; the history is in", path, os.WriteFile(path, file, 0o644))
			}
			var got []int // indexes of receives
			for i, e := range events {
				if e.Kind == received {
					got = append(got, i)
				}
			}
			a, b := got[len(got)/2], got[len(got)/2+1]
			for name, spoil := range map[string]func(h []event) []event{
				"one twice":         func(h []event) []event { h[b].Value = h[a].Value; return h },
				"two changed over":  func(h []event) []event { h[a].Value, h[b].Value = h[b].Value, h[a].Value; return h },
				"one lost":          func(h []event) []event { return slices.Delete(h, a, a+1) },
				"one never sent":    func(h []event) []event { h[b].Value = messages + 1; return h },
				"empty though full": func(h []event) []event { h[a].Kind = empty; return h },
			} {
				if r := linearizable(spoil(slices.Clone(events))); r != porcupine.Illegal {
					t.Errorf("a history with %s: %v, want Illegal", name, r)
				}
			}
		})
	}
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
