package bench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/registrypb"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

const (
	wantBytes    = 1024  // of an answer's content
	perDirection = 400   // questions from one institution to one other, at most
	lookAt       = 3_000 // persons among whom is sought
)

// question is one consultation, ready to be sent.
type question struct {
	direction string
	requester names.InstitutionID
	url       string
	header    http.Header
	body      []byte
	answer    int // bytes of content, by what the lives say
}

// asking is what a network is asked. It is used by many at once.
type asking interface {
	requesters() int
	requester(by int) names.InstitutionID
	question(by int, n int64) question // the n-th of a requester, from 0
	each() int                         // how many of one requester come before one comes again, at least
	count() int                        // different ones of all requesters
	directions() int
	answerBytes() int // of content, by what the lives say
}

// prepared are questions for the datasets of any test network.
type prepared struct {
	all        [][]question // by requester
	n, ways, b int
}

func (p *prepared) requesters() int                      { return len(p.all) }
func (p *prepared) requester(by int) names.InstitutionID { return p.all[by][0].requester }
func (p *prepared) question(by int, n int64) question    { return p.all[by][n%int64(len(p.all[by]))] }
func (p *prepared) count() int                           { return p.n }
func (p *prepared) directions() int                      { return p.ways }
func (p *prepared) answerBytes() int                     { return p.b }
func (p *prepared) each() int {
	n := len(p.all[0])
	for _, qs := range p.all {
		n = min(n, len(qs))
	}
	return n
}

// prepare draws questions, in every direction in which one institution can obtain
// data of one other, each on another person or dataset or period, so that no two
// answers are alike; of many it takes those whose answers come nearest to 1 KB. The
// directions take turns. It seeks among the first so many persons.
func prepare(n *testnet.Network, among int) (*prepared, error) {
	w, on := n.World(), names.DateOf(time.Now().UTC())
	endpoints := n.Endpoints()
	byDirection := map[string][]question{}
	rules := slices.DeleteFunc(w.Authorizations(), func(a *registrypb.Authorization) bool { return a.Purpose == string(data.CareerPurpose) })
	count, size := 0, 0
	for p := range w.Persons() {
		if p.Index == among {
			break
		}
		for _, a := range rules {
			for _, i := range w.Institutions() {
				if string(i.Type) != a.RequesterType || a.MandateRequired || !slices.Contains(a.Modes, string(names.Consultation)) {
					continue
				}
				c, answer, bytes, ok := sized(w, on, data.Consultation{
					Requester: i.ID, Purpose: names.Purpose(a.Purpose), Dataset: names.DatasetID(a.Dataset),
					Scheme: subject.SSIN, Number: p.SSIN.Number(), AuthLevel: a.MinAuthLevel,
				})
				if !ok {
					continue
				}
				d := string(i.ID) + " → " + string(answer.Suppliers[0].Supplier)
				q, err := newQuestion(endpoints, d, c)
				if err != nil {
					return nil, err
				}
				q.answer = bytes
				byDirection[d] = append(byDirection[d], q)
			}
		}
	}
	for d, qs := range byDirection {
		slices.SortStableFunc(qs, func(a, b question) int { return cmp.Compare(abs(a.answer-wantBytes), abs(b.answer-wantBytes)) })
		byDirection[d] = qs[:min(len(qs), perDirection)]
		for _, q := range byDirection[d] {
			size, count = size+q.answer, count+1
		}
	}
	if count == 0 {
		return nil, fmt.Errorf("no question of %d persons brings data", w.Config().Persons)
	}
	return &prepared{inTurns(byDirection), count, len(byDirection), size / count}, nil
}

// sized finds a period for which an answer of one supplier is about wantBytes.
func sized(w *data.World, on names.Date, c data.Consultation) (data.Consultation, data.Answer, int, bool) {
	try := func(years names.Date) (data.Answer, int) {
		c.Period = names.Period{From: data.Today - 365*years, Until: data.Today}
		a := w.Expected(c, on)
		if a.Status != nodepb.Status_DATA_FOUND || len(a.Suppliers) != 1 {
			return a, 0
		}
		return a, contentBytes(a)
	}
	a, size := try(8)
	if size > 0 && abs(size-wantBytes) > wantBytes/3 {
		other := names.Date(25)
		if size > wantBytes {
			other = 3
		}
		if b, n := try(other); n > 0 && abs(n-wantBytes) < abs(size-wantBytes) {
			return c, b, n, true
		}
		a, size = try(8)
	}
	return c, a, size, size > 0
}

func abs(n int) int { return max(n, -n) }

func newQuestion(e *testnet.Endpoints, direction string, c data.Consultation) (question, error) {
	at, ok := e.Of(c.Requester)
	if !ok {
		return question{}, fmt.Errorf("the network has no %s", c.Requester)
	}
	body, err := json.Marshal(testnet.Question(c, ""))
	return question{direction: direction, requester: c.Requester, url: at.API + consultations, header: headerFor(at, c.AuthLevel), body: body}, err
}

// inTurns gives each requester's questions, one of each of its directions after the
// other; directions that have fewer begin again, under client tickets of their own.
func inTurns(by map[string][]question) (all [][]question) {
	most := 0
	requesters := map[names.InstitutionID][]string{}
	for _, d := range slices.Sorted(maps.Keys(by)) {
		qs := by[d]
		most = max(most, len(qs))
		requesters[qs[0].requester] = append(requesters[qs[0].requester], d)
	}
	for _, r := range slices.Sorted(maps.Keys(requesters)) {
		var turns []question
		for i := range most {
			for _, d := range requesters[r] {
				turns = append(turns, by[d][i%len(by[d])])
			}
		}
		all = append(all, turns)
	}
	return all
}

// found tells whether an answer of the interface brings data.
func found(answer []byte) bool { return bytes.Contains(answer, []byte(`"status":"DATA_FOUND"`)) }
