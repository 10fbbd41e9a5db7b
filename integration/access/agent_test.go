package access

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bhome-bus/bhome/node"
)

func asRule(err error, to **node.NotAllowedError) bool {
	return errors.Is(err, node.ErrNotAllowed) && errors.As(err, to)
}

// player is what an agent has on the bus.
type player struct {
	n     *node.Node
	pubs  map[string]*node.Publisher
	subs  map[string]*node.Subscription
	held  []node.Message
	lent  map[string]node.Loan
	got   []*node.Reply
	asked int
}

// runAgent does what standard input says until it ends.
func runAgent(socket string) {
	p := &player{pubs: map[string]*node.Publisher{}, subs: map[string]*node.Subscription{}, lent: map[string]node.Loan{}}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		ctx, cancel := timeLimit()
		fmt.Println(p.do(ctx, socket, strings.Fields(in.Text())))
		cancel()
	}
	if p.n != nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = p.n.Close(ctx)
	}
}

// do follows one command. A mark is told as hexadecimal digits, backwards: no word of it is in memory that is searched.
func (p *player) do(ctx context.Context, socket string, words []string) string {
	arg := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch arg(0) {
	case "attach":
		n, err := node.Attach(ctx, node.Config{Name: arg(1), Socket: socket})
		p.n = n
		return answer(err)
	case "publish": // TOPIC [KEEP]
		keep, _ := strconv.Atoi(arg(2))
		pub, err := p.n.Publisher(ctx, arg(1), node.Keep(keep))
		if err == nil {
			p.pubs[arg(1)] = pub
		}
		return answer(err)
	case "subscribe": // PATTERN
		s, err := p.n.Subscribe(ctx, arg(1), node.Depth(256), node.Hold(256), node.History())
		if err == nil {
			p.subs[arg(1)] = s
		}
		return answer(err)
	case "send": // TOPIC SIZE MARK
		return answer(p.pubs[arg(1)].Publish(ctx, payload(arg(2), arg(3))))
	case "loan": // TOPIC SIZE MARK, to be sent later
		text := payload(arg(2), arg(3))
		l, err := p.pubs[arg(1)].Loan(ctx, len(text))
		if err == nil {
			copy(l.Bytes(), text)
			p.lent[arg(1)] = l
		}
		return answer(err)
	case "sendloan": // OF TOPIC
		return answer(p.pubs[arg(2)].Send(ctx, p.lent[arg(1)]))
	case "subscribers": // TOPIC COUNT
		k, _ := strconv.Atoi(arg(2))
		return answer(p.pubs[arg(1)].WaitForSubscribers(ctx, k))
	case "receive": // PATTERN COUNT: the topics and lengths, in alphabetical order
		var got []string
		count, _ := strconv.Atoi(arg(2))
		for range count {
			m, err := p.subs[arg(1)].Receive(ctx)
			if err != nil {
				return answer(err)
			}
			p.held = append(p.held, m)
			got = append(got, fmt.Sprintf("%s/%d", m.Topic(), len(m.Bytes())))
		}
		slices.Sort(got)
		return strings.Join(got, " ")
	case "nothing": // PATTERN: waits
		if m, ok, err := p.subs[arg(1)].TryReceive(); ok || err != nil {
			return fmt.Sprintf("there is something: %s, %v", m.Topic(), err)
		}
		return "ok"
	case "release":
		for _, m := range p.held {
			if err := m.Release(); err != nil {
				return answer(err)
			}
		}
		p.held = nil
		return "ok"
	case "serve": // TOPIC MARK: answers with as many bytes as it was asked with
		_, err := p.n.Serve(ctx, arg(1), func(_ context.Context, r *node.Request) ([]byte, error) {
			return payload(strconv.Itoa(len(r.Bytes())), arg(2)), nil
		})
		return answer(err)
	case "request": // TOPIC SIZE MARK
		r, err := p.n.Request(ctx, arg(1), payload(arg(2), arg(3)))
		if err == nil {
			p.got = append(p.got, r) // held: its memory stays what it is
			return fmt.Sprint("answered ", len(r.Bytes()))
		}
		return answer(err)
	case "online": // until the center knows it again
		p.asked++ // another topic each time: answers are kept for a while
		_, err := p.n.Providers(ctx, fmt.Sprint("nobody.serves.", p.asked))
		return answer(err)
	case "list":
		if _, err := p.n.Procs(ctx); err != nil {
			return answer(err)
		}
		topics, err := p.n.Topics(ctx)
		if err != nil {
			return answer(err)
		}
		var names []string
		for _, t := range topics {
			names = append(names, t.GetTopic())
		}
		return strings.Join(names, " ")
	case "find": // MARK: in how many mappings and descriptors it is
		found, err := find(mark(arg(1)))
		if err != nil {
			return answer(err)
		}
		return found
	case "peek": // PID: tries to get another process's descriptors
		fds, err := filepath.Glob("/proc/" + arg(1) + "/fd/*")
		if err == nil && len(fds) == 0 {
			_, err = os.ReadDir("/proc/" + arg(1) + "/fd")
		}
		if errors.Is(err, fs.ErrPermission) {
			return "denied"
		}
		return fmt.Sprintf("%d descriptors, %v", len(fds), err)
	}
	return "error: what is " + strings.Join(words, " ")
}

// mark is what was told backwards.
func mark(told string) []byte {
	b, err := hex.DecodeString(told)
	if err != nil {
		panic(err)
	}
	slices.Reverse(b)
	return b
}

// payload is size bytes, with the mark again and again.
func payload(size, told string) []byte {
	n, err := strconv.Atoi(size)
	if err != nil {
		panic(err)
	}
	m := mark(told)
	return bytes.Repeat(m, n/len(m)+1)[:n]
}

// find looks for m in all shared memory that this process has mapped or could map.
func find(m []byte) (string, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return "", err
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return "", err
	}
	defer mem.Close()
	mapped, looked := 0, 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if !strings.Contains(line, "/memfd:bhome") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return "", err
		}
		looked++
		b := make([]byte, to-from)
		if _, err := mem.ReadAt(b, from); err != nil {
			return "", fmt.Errorf("%s: %w", line, err)
		}
		if bytes.Contains(b, m) {
			mapped++
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return "", err
	}
	open := 0
	for _, e := range fds {
		fd, _ := strconv.Atoi(e.Name())
		name, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.Contains(name, "memfd:") {
			continue // it was closed meanwhile, or is something else
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return "", err
		}
		looked++
		b := make([]byte, st.Size)
		if _, err := unix.Pread(fd, b, 0); err != nil {
			return "", err
		}
		if bytes.Contains(b, m) {
			open++
		}
	}
	if looked == 0 {
		return "", errors.New("it has no shared memory at all")
	}
	if mapped+open == 0 {
		return "nowhere", nil
	}
	return fmt.Sprintf("in %d mappings and %d descriptors", mapped, open), nil
}
