package logging

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// Slog is a slog.Logger that writes to l. slog's levels below debug are trace.
func Slog(l hclog.Logger) *slog.Logger { return slog.New(NewHandler(l)) }

// Handler is a slog.Handler over an hclog.Logger. Groups become dotted prefixes of the keys.
type Handler struct {
	log    hclog.Logger
	prefix string
}

var _ slog.Handler = (*Handler)(nil)

// NewHandler makes a Handler that writes to l.
func NewHandler(l hclog.Logger) *Handler { return &Handler{log: l} }

func toHclog(l slog.Level) hclog.Level {
	switch {
	case l < slog.LevelDebug:
		return hclog.Trace
	case l < slog.LevelInfo:
		return hclog.Debug
	case l < slog.LevelWarn:
		return hclog.Info
	case l < slog.LevelError:
		return hclog.Warn
	default:
		return hclog.Error
	}
}

// Enabled says whether the logger lets the level through, so that disabled records cost next to nothing.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool {
	switch toHclog(l) {
	case hclog.Trace:
		return h.log.IsTrace()
	case hclog.Debug:
		return h.log.IsDebug()
	case hclog.Info:
		return h.log.IsInfo()
	case hclog.Warn:
		return h.log.IsWarn()
	default:
		return h.log.IsError()
	}
}

// Handle writes one record.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	args := make([]any, 0, 2*r.NumAttrs())
	r.Attrs(func(a slog.Attr) bool {
		args = appendAttr(args, h.prefix, a)
		return true
	})
	h.log.Log(toHclog(r.Level), r.Message, args...)
	return nil
}

// WithAttrs is the handler with attributes that every record carries.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	args := make([]any, 0, 2*len(attrs))
	for _, a := range attrs {
		args = appendAttr(args, h.prefix, a)
	}
	if len(args) == 0 {
		return h
	}
	return &Handler{log: h.log.With(args...), prefix: h.prefix}
}

// WithGroup is the handler whose later keys begin with name and a dot.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return &Handler{log: h.log, prefix: h.prefix + name + "."}
}

func appendAttr(args []any, prefix string, a slog.Attr) []any {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return args // slog: an empty Attr is ignored
	}
	if v.Kind() != slog.KindGroup {
		return append(args, prefix+a.Key, plain(v))
	}
	if a.Key != "" { // an unnamed group is inlined
		prefix += a.Key + "."
	}
	for _, g := range v.Group() {
		args = appendAttr(args, prefix, g)
	}
	return args
}

// plain gives hclog what it prints well: errors and durations as they read, not as structs.
func plain(v slog.Value) any {
	switch x := v.Any().(type) {
	case error:
		return x.Error()
	default:
		if v.Kind() == slog.KindDuration {
			return v.Duration().String()
		}
		return x
	}
}
