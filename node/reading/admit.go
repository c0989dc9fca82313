package reading

import (
	"context"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/subject"
)

// Admitted is a subject that proved who it is, and the time that it wants to see.
type Admitted struct {
	Subject     subject.ID
	From, Until time.Time
}

// Admit checks a subject's token as Subject does, uses its challenge up and journals
// the reading, and gives nothing itself: for views that this node alone can give. Its
// errors are those of Subject.
func (s *Service) Admit(ctx context.Context, who Reader, token []byte) (*Admitted, error) {
	e := s.by(s.reading(purposeSubject), who)
	t, raw, refused := s.admit(who, token)
	if err := asFault(refused); err != nil {
		return nil, err
	}
	if t != nil {
		e.Subject, e.RequestHash = filed(t.Subject), sum(token)
	}
	if err := s.note(ctx, e, refused); err != nil {
		return nil, err
	}
	v, err := decodeViewing(raw)
	if err != nil {
		return nil, err
	}
	return &Admitted{t.Subject, at(v.GetFromUnixMs()), at(v.GetUntilUnixMs())}, nil
}
