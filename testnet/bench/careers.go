package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/crossroads-mesh/crossroads/node/nodepb"
	"github.com/crossroads-mesh/crossroads/registry/names"
	"github.com/crossroads-mesh/crossroads/registry/subject"
	"github.com/crossroads-mesh/crossroads/testnet"
	"github.com/crossroads-mesh/crossroads/testnet/data"
)

// careers are questions for career records, one of some 1 KB an answer: every institution
// asks every other, about everybody who lives. They are made when they are asked. None
// comes twice before one requester has asked all of its; and no two requesters are given
// the same record before one has had its share of all.
type careers struct {
	from    []careersOf
	numbers []string
	bytes   int // of an answer's content, mean
}

// careersOf are those of one requester.
type careersOf struct {
	requester names.InstitutionID
	url       string
	header    http.Header
	suppliers []careersAt
}

type careersAt struct {
	direction   string
	head, after []byte // of the body, around the number
}

func newCareers(w *data.World, e *testnet.Endpoints) (*careers, error) {
	c := new(careers)
	for p := range w.Persons() {
		if p.Death == names.Forever && p.Cancelled == names.Forever {
			c.numbers = append(c.numbers, p.SSIN.Number())
		}
	}
	all := w.Institutions()
	if len(c.numbers) <= len(all) {
		return nil, errors.New("too few persons live in this network")
	}
	if len(c.numbers)%len(all) == 0 { // so that steps of that many come by everybody
		c.numbers = c.numbers[1:]
	}
	on, answers := names.DateOf(time.Now().UTC()), 0
	for _, requester := range all {
		at, _ := e.Of(requester.ID)
		of := careersOf{requester: requester.ID, url: at.API + consultations, header: headerFor(at, 0)}
		for _, supplier := range all {
			if supplier.ID == requester.ID {
				continue
			}
			ask := data.Consultation{
				Requester: requester.ID, Purpose: data.CareerPurpose, Dataset: data.CareerDataset(supplier.ID), Scheme: subject.SSIN, Number: numberHere,
				Period: names.Period{From: data.Today - 364, Until: data.Today},
			}
			body, err := json.Marshal(testnet.Question(ask, ""))
			if err != nil {
				return nil, err
			}
			head, after, ok := bytes.Cut(body, []byte(numberHere))
			if !ok {
				return nil, errors.New("a question names no subject")
			}
			of.suppliers = append(of.suppliers, careersAt{string(requester.ID) + " → " + string(supplier.ID), head, after})
			ask.Number = c.numbers[answers%len(c.numbers)]
			answer := w.Expected(ask, on)
			if answer.Status != nodepb.Status_DATA_FOUND || len(answer.Suppliers) != 1 {
				return nil, errors.New("this network keeps no career records")
			}
			c.bytes += contentBytes(answer)
			answers++
		}
		c.from = append(c.from, of)
	}
	c.bytes /= answers
	return c, nil
}

const (
	consultations = "/v1/consultations"
	numberHere    = "00000000000"
)

func headerFor(at testnet.Endpoint, level uint32) http.Header {
	return http.Header{
		"Authorization": {"Bearer " + at.Token}, "Content-Type": {"application/json"},
		"X-Crossroads-User": {"bench@" + string(at.Institution)}, "X-Crossroads-Auth-Level": {strconv.FormatUint(uint64(level), 10)},
	}
}

// contentBytes is what the records of an answer take.
func contentBytes(a data.Answer) (n int) {
	for _, s := range a.Suppliers {
		for _, r := range s.Records {
			n += len(r) + 1
		}
	}
	return n
}

func (c *careers) requesters() int                      { return len(c.from) }
func (c *careers) requester(by int) names.InstitutionID { return c.from[by].requester }
func (c *careers) count() int                           { return len(c.from) * c.each() }
func (c *careers) each() int                            { return (len(c.from) - 1) * len(c.numbers) }
func (c *careers) directions() int                      { return len(c.from) * (len(c.from) - 1) }
func (c *careers) answerBytes() int                     { return c.bytes }

// question gives the n-th of a requester: suppliers take turns, and persons go by steps
// of as many as there are requesters.
func (c *careers) question(by int, n int64) question {
	of := c.from[by]
	at := of.suppliers[n%int64(len(of.suppliers))]
	number := c.numbers[(n/int64(len(of.suppliers))*int64(len(c.from))+int64(by))%int64(len(c.numbers))]
	body := make([]byte, 0, len(at.head)+len(number)+len(at.after))
	return question{direction: at.direction, requester: of.requester, url: of.url, header: of.header, body: append(append(append(body, at.head...), number...), at.after...)}
}
