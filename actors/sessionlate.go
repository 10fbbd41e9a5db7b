package actors

import "github.com/asynkron/protoactor-go/actor"

// lateQuestions answers what still waits in a session's mailbox when the session has ended. The framework drops it without
// a word, and whoever asked all sessions would wait for this one until its patience ends.
type lateQuestions struct {
	s    *session
	root *actor.RootContext
}

// sessionOver is the answer to such a question.
type sessionOver struct{}

// MessageReceived hears of each message after the actor has had it, on the goroutine on which the actor runs.
func (l lateQuestions) MessageReceived(msg any) {
	if e, ok := msg.(*actor.MessageEnvelope); ok && l.s.over && e.Sender != nil {
		l.root.Send(e.Sender, &sessionOver{})
	}
}

// MailboxStarted, MessagePosted and MailboxEmpty are the rest of the framework's interface.
func (lateQuestions) MailboxStarted() {}

// MessagePosted is called on the sender's goroutine.
func (lateQuestions) MessagePosted(any) {}

// MailboxEmpty is called often.
func (lateQuestions) MailboxEmpty() {}
