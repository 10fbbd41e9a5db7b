package wire

import "testing"

// Sinks keep the compiler from dropping what is measured.
type sinks struct {
	word   Word
	header Header
	n      int
}

// dataPath is what runs for each message; none of it may allocate.
var dataPath = []struct {
	name string
	make func() func(s *sinks)
}{
	{"Message", func() func(*sinks) {
		return func(s *sinks) {
			w, _ := Message(0x12345678, 0x1234)
			place, generation, _ := w.Message()
			s.word, s.n = w, int(place)+int(generation)
		}
	}},
	{"AllocRequest", func() func(*sinks) {
		return func(s *sinks) {
			s.word, _ = AllocRequest{ID: 7, Proc: 3, Socket: 1, Class: 34}.Encode()
			r, _ := DecodeAllocRequest(s.word)
			s.n = int(r.Class)
		}
	}},
	{"Free", func() func(*sinks) {
		return func(s *sinks) {
			s.word, _ = Free{Grant: NewGrant(7, 0x100)}.Encode()
			r, _ := DecodeFree(s.word)
			s.n = int(r.Grant.Place())
		}
	}},
	{"Inline", func() func(*sinks) {
		words := make([]uint64, MaxInlineHead)
		in := Inline{Len: 64, Topic: 5, Seq: 1, Stamp: 2, HasCorr: true, Corr: 3, HasTrace: true, Trace: trace()}
		return func(s *sinks) {
			s.n = in.PutWords(words)
			slots, _ := Word(words[0]).InlineSlots()
			s.n += int(slots) + int(InlineHead{Word(words[0]), words[1]}.Topic())
		}
	}},
	{"Header", func() func(*sinks) {
		b, h := make([]byte, HeaderSize), header()
		return func(s *sinks) {
			if h.Put(b) == nil {
				_ = s.header.Decode(b)
			}
		}
	}},
	{"CalcAllocIndex", func() func(*sinks) {
		return func(s *sinks) { s.n = CalcAllocIndex(900) + CalcAllocIndex(int64(s.n&0xfff)) }
	}},
	{"MatchTopic", func() func(*sinks) {
		return func(s *sinks) {
			if MatchTopic("plant.*.temperature", "plant.boiler.temperature") {
				s.n++
			}
		}
	}},
}

func BenchmarkDataPath(b *testing.B) {
	for _, c := range dataPath {
		b.Run(c.name, func(b *testing.B) {
			var s sinks
			run := c.make()
			b.ReportAllocs()
			for b.Loop() {
				run(&s)
			}
		})
	}
}

func TestDataPathAllocatesNothing(t *testing.T) {
	for _, c := range dataPath {
		var s sinks
		run := c.make()
		if n := testing.AllocsPerRun(100, func() { run(&s) }); n != 0 {
			t.Errorf("%s allocates %v times", c.name, n)
		}
	}
}
