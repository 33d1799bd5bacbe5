package consensus

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"

	"github.com/facetd/facetd/cluster"
)

// raftLogger hands what Raft says to slog, one level lower: an election is news
// for Raft and routine for us. Its debug output is dropped.
type raftLogger struct {
	to   *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLogger)(nil)

func (l *raftLogger) say(level slog.Level, msg string, args []any) {
	if !l.to.Enabled(context.Background(), level) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = f[1:]
		}
	}
	l.to.Log(context.Background(), level, msg, args...)
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	switch level {
	case hclog.Info:
		l.Info(msg, args...)
	case hclog.Warn:
		l.Warn(msg, args...)
	case hclog.Error:
		l.Error(msg, args...)
	}
}

func (l *raftLogger) Trace(string, ...any)         {}
func (l *raftLogger) Debug(string, ...any)         {}
func (l *raftLogger) Info(msg string, args ...any) { l.say(slog.LevelDebug, msg, args) }
func (l *raftLogger) Warn(msg string, args ...any) { l.say(slog.LevelInfo, msg, args) }

// Error is a warning for us, or less: while a cluster begins, its founder asks nodes
// for their votes that are still about to hear of it.
func (l *raftLogger) Error(msg string, args ...any) {
	level := slog.LevelWarn
	for _, a := range args {
		if err, ok := a.(error); ok && errors.Is(err, cluster.ErrNoClusterYet) {
			level = slog.LevelDebug
		}
	}
	l.say(level, msg, args)
}

func (l *raftLogger) IsTrace() bool { return false }
func (l *raftLogger) IsDebug() bool { return false }
func (l *raftLogger) IsInfo() bool  { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *raftLogger) IsWarn() bool  { return l.to.Enabled(context.Background(), slog.LevelInfo) }
func (l *raftLogger) IsError() bool { return l.to.Enabled(context.Background(), slog.LevelWarn) }

func (l *raftLogger) ImpliedArgs() []any { return l.args }
func (l *raftLogger) Name() string       { return l.name }

func (l *raftLogger) With(args ...any) hclog.Logger {
	all := append(append(make([]any, 0, len(l.args)+len(args)), l.args...), args...)
	return &raftLogger{to: l.to.With(args...), name: l.name, args: all}
}

func (l *raftLogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{to: l.to, name: name, args: l.args}
}

func (l *raftLogger) SetLevel(hclog.Level)  {}
func (l *raftLogger) GetLevel() hclog.Level { return hclog.Info }

func (l *raftLogger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return lineWriter{l}
}

type lineWriter struct{ l *raftLogger }

func (w lineWriter) Write(b []byte) (int, error) {
	w.l.Info(string(b))
	return len(b), nil
}
