// Package exitcode says with what status the programs end: 0 ok, 1 error, 2 usage, 3 no daemon, 4 degraded, 5
// faults.
package exitcode

import (
	"errors"
	"fmt"
)

// The statuses. Degraded means: it worked, but not everything is as it should be (messages were lost, say). Faults
// means: the bus was checked, and something is wrong with it.
const (
	OK       = 0
	Error    = 1
	Usage    = 2
	NoDaemon = 3
	Degraded = 4
	Faults   = 5
)

// coded is an error that knows its status.
type coded struct {
	err  error
	code int
}

func (c *coded) Error() string { return c.err.Error() }
func (c *coded) Unwrap() error { return c.err }

// With gives err a status; nil stays nil.
func With(code int, err error) error {
	if err == nil {
		return nil
	}
	return &coded{err: err, code: code}
}

// Usagef is an error of whoever typed the command.
func Usagef(format string, args ...any) error { return With(Usage, fmt.Errorf(format, args...)) }

// Degradedf is the report of something that worked in part.
func Degradedf(format string, args ...any) error { return With(Degraded, fmt.Errorf(format, args...)) }

// Of is the status for err: that given by the outermost With, else Error; OK for nil.
func Of(err error) int {
	if err == nil {
		return OK
	}
	if c := (*coded)(nil); errors.As(err, &c) {
		return c.code
	}
	return Error
}
