// Package child runs parts of bench and demo in real processes: this program again, with a hidden command, told what to do
// on its standard input and reporting on its standard output, a JSON object a line.
//
// It owns the processes it starts and nothing else: a child ends when its parent does, whatever way that ends, and the
// parent knows each child's end.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Event is a line from a child.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Command is a line to a child.
type Command struct {
	Name string          `json:"command"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Failed is the event of a child that ends with an error; its data is the text.
const Failed = "failed"

// start is the command that begins a child's work, with its configuration.
const start = "start"

// Role is what a child does. It returns when it is done, or when s.Context ends.
type Role func(ctx context.Context, s *Session) error

// ErrParentGone ends the context of a child whose parent is gone.
var ErrParentGone = errors.New("the parent process is gone")

// Session is a child's side of the conversation. Emit is for one goroutine at a time.
type Session struct {
	config   json.RawMessage
	commands chan Command
	out      *bufio.Writer
}

// Run is the main of a child: it takes its configuration from in, does role, and reports on out.
func Run(ctx context.Context, in io.Reader, out io.Writer, role Role) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &Session{commands: make(chan Command, 16), out: bufio.NewWriter(out)}
	dec := json.NewDecoder(bufio.NewReader(in))
	var first Command
	if err := dec.Decode(&first); err != nil || first.Name != start {
		return fmt.Errorf("this command is for bhctl's own use: it expects its configuration on standard input (%v)", err)
	}
	s.config = first.Data
	go func() { // stays in Read until the parent closes the pipe: standard input can't be interrupted
		for {
			var c Command
			if err := dec.Decode(&c); err != nil {
				cancel(ErrParentGone)
				return
			}
			select {
			case s.commands <- c: // has room for all that a parent says before it hears an answer
			case <-ctx.Done():
				return
			}
		}
	}()
	err := role(ctx, s)
	if err != nil {
		_ = s.Emit(Failed, err.Error()) // the status says it too
	}
	return err
}

// Config reads the child's configuration into v.
func (s *Session) Config(v any) error {
	if err := json.Unmarshal(s.config, v); err != nil {
		return fmt.Errorf("configuration of a child: %w", err)
	}
	return nil
}

// Emit reports an event to the parent.
func (s *Session) Emit(name string, data any) error {
	raw, err := json.Marshal(data)
	if err == nil {
		err = json.NewEncoder(s.out).Encode(Event{Name: name, Data: raw})
	}
	if err == nil {
		err = s.out.Flush()
	}
	if err != nil {
		return fmt.Errorf("report %q to the parent: %w", name, err)
	}
	return nil
}

// Commands is what the parent says after the configuration.
func (s *Session) Commands() <-chan Command { return s.commands }

// Await waits for the command name and reads its data into v (nil: it has none that matters). Other commands are an error.
func (s *Session) Await(ctx context.Context, name string, v any) error {
	take := func(c Command) error {
		if c.Name != name {
			return fmt.Errorf("the parent said %q, expected was %q", c.Name, name)
		}
		return c.Read(v)
	}
	select {
	case c := <-s.commands:
		return take(c)
	case <-ctx.Done():
	}
	select { // what the parent said before it hung up counts
	case c := <-s.commands:
		return take(c)
	default:
		return fmt.Errorf("wait for %q: %w", name, context.Cause(ctx))
	}
}

// Read reads a command's data into v; nil: ignored.
func (c Command) Read(v any) error {
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(c.Data, v); err != nil {
		return fmt.Errorf("data of command %q: %w", c.Name, err)
	}
	return nil
}

// Read reads an event's data into v.
func (e Event) Read(v any) error {
	if err := json.Unmarshal(e.Data, v); err != nil {
		return fmt.Errorf("data of event %q: %w", e.Name, err)
	}
	return nil
}
