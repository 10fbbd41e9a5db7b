package node

import (
	"errors"
	"fmt"

	bhomev1 "github.com/bhome-bus/bhome/proto/bhome/v1"
	"github.com/bhome-bus/bhome/shmio"
	"github.com/bhome-bus/bhome/wire"
)

// What can go wrong, for errors.Is.
var (
	ErrNoDaemon        = errors.New("no bhomed is running")
	ErrNameInUse       = errors.New("name in use")
	ErrTooLarge        = errors.New("message too large")
	ErrNoMemory        = errors.New("memory limit reached")
	ErrTooMany         = errors.New("too many")
	ErrClosed          = errors.New("closed")
	ErrIncompatibleABI = shmio.ErrIncompatibleABI
	ErrNoProvider      = errors.New("no provider")
	ErrProviderGone    = errors.New("the provider is gone")
	ErrHandler         = errors.New("handler error")
	ErrHandlerPanic    = errors.New("handler panic")
	ErrReleased        = errors.New("already released")
	ErrFull            = errors.New("a subscriber's queue is full")
	ErrDisplaced       = errors.New("displaced by another process of the same name")
	ErrBadTopic        = wire.ErrBadTopic
	ErrTableFull       = errors.New("the proc table is full")
	ErrNotAllowed      = errors.New("not allowed")
	ErrDisconnected    = errors.New("not connected to the center")
	ErrInvalid         = errors.New("invalid input")
	ErrCancelled       = errors.New("cancelled")
	ErrNotSent         = errors.New("not everything was sent")
	ErrRemote          = errors.New("the center failed")
)

// NameInUseError is the ErrNameInUse that says by whom.
type NameInUseError struct {
	Name string
	PID  int32
	UID  uint32
}

func (e *NameInUseError) Error() string {
	return fmt.Sprintf("name %q is in use by process %d (uid %d); choose another, or ask for Takeover as the same uid", e.Name, e.PID, e.UID)
}

// Is makes errors.Is(err, ErrNameInUse) true.
func (e *NameInUseError) Is(target error) bool { return target == ErrNameInUse }

// NotAllowedError is the ErrNotAllowed that names the access rule of bhomed's configuration which refuses.
type NotAllowedError struct {
	Rule    string // "access.attach" and "access.inspect" are no topic's
	Message string
}

func (e *NotAllowedError) Error() string { return fmt.Sprintf("%v: %s", ErrNotAllowed, e.Message) }

// Is makes errors.Is(err, ErrNotAllowed) true.
func (e *NotAllowedError) Is(target error) bool { return target == ErrNotAllowed }

// LimitError says which limit refused, whose it is and how much is in use; it is an ErrNoMemory, ErrTooMany or ErrTooLarge.
type LimitError struct {
	Limit   string // bus, uid, node, route, table…
	Whose   string
	InUse   uint64
	Max     uint64
	Message string
	kind    error
}

func (e *LimitError) Error() string {
	s := fmt.Sprintf("%v: limit %q", e.kind, e.Limit)
	if e.Whose != "" {
		s += " of " + e.Whose
	}
	s += fmt.Sprintf(": %d of %d in use", e.InUse, e.Max)
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is makes errors.Is(err, ErrNoMemory) (or ErrTooMany, ErrTooLarge) true.
func (e *LimitError) Is(target error) bool { return target == e.kind }

// HandlerError is what a service's handler returned (ErrHandler) or panicked with (ErrHandlerPanic).
type HandlerError struct {
	Topic   string
	Message string
	Panic   bool
}

func (e *HandlerError) Error() string {
	if e.Panic {
		return fmt.Sprintf("handler of %q panicked: %s", e.Topic, e.Message)
	}
	return fmt.Sprintf("handler of %q: %s", e.Topic, e.Message)
}

// Is makes errors.Is(err, ErrHandler) or ErrHandlerPanic true.
func (e *HandlerError) Is(target error) bool {
	if e.Panic {
		return target == ErrHandlerPanic
	}
	return target == ErrHandler
}

// NotSentError says how much Close could not send; it is an ErrNotSent.
type NotSentError struct {
	Messages int // waited for room in a peer's queue
	Held     int // messages, replies and loans that the program has not released
}

func (e *NotSentError) Error() string {
	return fmt.Sprintf("closed with %d messages not sent and %d not released", e.Messages, e.Held)
}

// Is makes errors.Is(err, ErrNotSent) true.
func (e *NotSentError) Is(target error) bool { return target == ErrNotSent }

// fromErrorMsg turns the center's refusal into the error that callers test for; nil if m is nil or OK.
func fromErrorMsg(m *bhomev1.ErrorMsg, subject string) error {
	if m == nil || m.GetCode() == bhomev1.ErrorCode_ERROR_CODE_OK {
		return nil
	}
	limit := func(kind error) error {
		return &LimitError{Limit: m.GetLimit(), Whose: m.GetWhose(), InUse: m.GetInUse(), Max: m.GetMax(), Message: m.GetMessage(), kind: kind}
	}
	plain := func(kind error) error { return fmt.Errorf("%w: %s", kind, m.GetMessage()) }
	switch m.GetCode() {
	case bhomev1.ErrorCode_ERROR_CODE_NAME_IN_USE:
		return &NameInUseError{Name: subject, PID: m.GetPid(), UID: m.GetUid()}
	case bhomev1.ErrorCode_ERROR_CODE_NO_MEMORY:
		return limit(ErrNoMemory)
	case bhomev1.ErrorCode_ERROR_CODE_TOO_MANY:
		return limit(ErrTooMany)
	case bhomev1.ErrorCode_ERROR_CODE_TOO_LARGE:
		return limit(ErrTooLarge)
	case bhomev1.ErrorCode_ERROR_CODE_TABLE_FULL:
		return plain(ErrTableFull)
	case bhomev1.ErrorCode_ERROR_CODE_NO_PROVIDER:
		return plain(ErrNoProvider)
	case bhomev1.ErrorCode_ERROR_CODE_INCOMPATIBLE_ABI:
		return plain(ErrIncompatibleABI)
	case bhomev1.ErrorCode_ERROR_CODE_NOT_ALLOWED:
		if m.GetRule() == "" {
			return plain(ErrNotAllowed)
		}
		return &NotAllowedError{Rule: m.GetRule(), Message: m.GetMessage()}
	case bhomev1.ErrorCode_ERROR_CODE_DISPLACED:
		return plain(ErrDisplaced)
	case bhomev1.ErrorCode_ERROR_CODE_HANDLER:
		return &HandlerError{Topic: subject, Message: m.GetMessage()}
	case bhomev1.ErrorCode_ERROR_CODE_HANDLER_PANIC:
		return &HandlerError{Topic: subject, Message: m.GetMessage(), Panic: true}
	case bhomev1.ErrorCode_ERROR_CODE_CANCELLED:
		return plain(ErrCancelled)
	case bhomev1.ErrorCode_ERROR_CODE_CLOSED:
		return plain(ErrClosed)
	case bhomev1.ErrorCode_ERROR_CODE_INVALID_INPUT, bhomev1.ErrorCode_ERROR_CODE_NOT_FOUND:
		return plain(ErrInvalid)
	default:
		return plain(ErrRemote)
	}
}
