package node

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A job's context is one like any other, whenever somebody first looks at it.
func TestJobContext(t *testing.T) {
	why := errors.New("why")
	type step func(c *jobContext, stop context.CancelCauseFunc)
	cancel := func(c *jobContext, _ context.CancelCauseFunc) { c.cancel(why); c.cancel(errors.New("later")) }
	done := func(c *jobContext, _ context.CancelCauseFunc) { c.cancel(nil) }
	parent := func(_ *jobContext, stop context.CancelCauseFunc) { stop(why) }
	for name, tc := range map[string]struct {
		end   step
		cause error
	}{"cancelled": {cancel, why}, "handled": {done, context.Canceled}, "the service closes": {parent, why}} {
		for _, looked := range []bool{false, true} {
			p, stop := context.WithCancelCause(context.Background())
			c := &jobContext{parent: p}
			if c.Err() != nil || c.why() != nil {
				t.Errorf("%s: it has ended before it did: %v, %v", name, c.Err(), c.why())
			}
			var child context.Context
			if looked {
				var end context.CancelFunc
				child, end = context.WithTimeout(c, time.Hour)
				defer end()
				select {
				case <-c.Done():
					t.Errorf("%s: done before it ended", name)
				default:
				}
			}
			tc.end(c, stop)
			if !errors.Is(c.Err(), context.Canceled) || c.why() != tc.cause {
				t.Errorf("%s, looked at before %v: %v because of %v", name, looked, c.Err(), c.why())
			}
			<-c.Done()
			if got := context.Cause(c); got != tc.cause || c.why() != tc.cause || !errors.Is(c.Err(), context.Canceled) {
				t.Errorf("%s, looked at before %v: %v because of %v", name, looked, c.Err(), got)
			}
			if looked {
				<-child.Done()
				if got := context.Cause(child); got != tc.cause {
					t.Errorf("%s: its child ended because of %v", name, got)
				}
			}
			stop(nil)
		}
	}
	if _, ok := (&jobContext{parent: context.Background()}).Deadline(); ok {
		t.Error("it has a deadline")
	}
}
