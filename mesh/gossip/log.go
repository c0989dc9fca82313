package gossip

import (
	"context"
	"log/slog"
	"strings"
)

// logWriter turns memberlist's lines into records. Most of what memberlist calls a warning
// or an error is a network's daily life, so nothing is above Info.
type logWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w logWriter) Write(b []byte) (int, error) {
	label, text, ok := strings.Cut(strings.TrimSpace(string(b)), "] ")
	level := slog.LevelDebug
	switch {
	case !ok:
		text = label
	case label == "[WARN", label == "[ERR":
		level = slog.LevelInfo
	}
	w.log.Log(context.Background(), level, "gossip: "+strings.TrimPrefix(text, "memberlist: "))
	return len(b), nil
}
