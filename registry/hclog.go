package registry

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// raftLogger gives raft and its log store a logger that ends in log.
func raftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(slogSink{log})
	return l
}

// slogSink passes on what an operator should hear of and keeps the rest at debug
// level. Raft tells its every step at info, and a peer that is down several times
// a second at error; the registry reports elections itself.
type slogSink struct{ log *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	if level >= hclog.Error && !expected(msg) {
		to = slog.LevelWarn
	}
	if s.log.Enabled(context.Background(), to) {
		s.log.Log(context.Background(), to, "raft: "+msg, args...)
	}
}

// expected are the errors that a dead peer, a lost leader or our own end bring.
func expected(msg string) bool {
	for _, p := range []string{"failed to heartbeat", "failed to appendEntries", "failed to pipeline", "failed to start pipeline",
		"failed to make request", "failed to decode incoming", "failed to accept", "failed to flush", "peer has newer term", "failed to send snapshot"} {
		if strings.HasPrefix(msg, p) {
			return true
		}
	}
	return false
}
